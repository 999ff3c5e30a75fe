package h2_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"example.com/routeguide/server/h2"
)

// describe answers with what the request is, as JSON.
func describe(response http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	encoded, err := json.Marshal(description{
		request.Method, request.RequestURI, request.URL.Path, request.Host, request.ContentLength, string(body), request.Header, request.Trailer,
	})
	if err != nil {
		panic(err)
	}
	_, _ = response.Write(encoded)
}

type description struct {
	Method, RequestURI, Path, Host string
	ContentLength                  int64
	Body                           string
	Header, Trailer                http.Header
}

func (c *client) awaitDescription(stream uint32) description {
	c.t.Helper()
	a := c.awaitAnswer(stream)
	var d description
	if err := json.Unmarshal([]byte(a.body), &d); err != nil {
		c.t.Fatalf("stream %d: %v: %+v", stream, err, a)
	}
	return d
}

// Requests that break the rules of sections 8.2 and 8.3 of RFC 9113 are reset, before a handler sees them, and the connection goes on.
func TestMalformedRequestIsReset(t *testing.T) {
	t.Parallel()
	with := func(fields ...string) []string { return request(http.MethodGet, "/", fields...) }
	for name, fields := range map[string][]string{
		"upper case":                       with("Accept", "a"),
		"upper case within":                with("aCcept", "a"),
		"empty name":                       with("", "a"),
		"space in a name":                  with("a b", "a"),
		"colon in a name":                  with("a:b", "a"),
		"tab in a name":                    with("a\t", "a"),
		"byte beyond ASCII in a name":      with("a\xff", "a"),
		"line feed in a name":              with("a\nb", "a"),
		"line feed in a value":             with("a", "b\nc"),
		"carriage return in a value":       with("a", "b\rc"),
		"request in a value":               with("a", "b\r\n\r\nGET / HTTP/1.1\r\n"),
		"NUL in a value":                   with("a", "b\x00"),
		"leading space":                    with("a", " b"),
		"trailing tab":                     with("a", "b\t"),
		"connection":                       with("connection", "close"),
		"proxy-connection":                 with("proxy-connection", "keep-alive"),
		"keep-alive":                       with("keep-alive", "1"),
		"transfer-encoding":                with("transfer-encoding", "chunked"),
		"upgrade":                          with("upgrade", "h2c"),
		"te":                               with("te", "gzip"),
		"te with trailers":                 with("te", "trailers, gzip"),
		"pseudo-header after a field":      {":method", "GET", ":scheme", "http", "a", "b", ":path", "/"},
		"unknown pseudo-header":            with(":protocol", "websocket"),
		"pseudo-header of responses":       with(":status", "200"),
		"two methods":                      with(":method", "GET"),
		"two paths":                        with(":path", "/"),
		"two schemes":                      with(":scheme", "http"),
		"two authorities":                  with(":authority", "example.com"),
		"no method":                        {":scheme", "http", ":path", "/", ":authority", "a"},
		"no scheme":                        {":method", "GET", ":path", "/", ":authority", "a"},
		"no path":                          {":method", "GET", ":scheme", "http", ":authority", "a"},
		"empty path":                       {":method", "GET", ":scheme", "http", ":path", "", ":authority", "a"},
		"no fields":                        {},
		"space in the method":              {":method", "GET /", ":scheme", "http", ":path", "/", ":authority", "a"},
		"line feed in the path":            {":method", "GET", ":scheme", "http", ":path", "/a\nb", ":authority", "a"},
		"path that is none":                {":method", "GET", ":scheme", "http", ":path", "a", ":authority", "a"},
		"absolute path":                    {":method", "GET", ":scheme", "http", ":path", "http://a/", ":authority", "a"},
		"path with a bad escape":           {":method", "GET", ":scheme", "http", ":path", "/%zz", ":authority", "a"},
		"asterisk other than in OPTIONS":   {":method", "GET", ":scheme", "http", ":path", "*", ":authority", "a"},
		"scheme other than http and https": {":method", "GET", ":scheme", "gopher", ":path", "/", ":authority", "a"},
		"host that differs":                with("host", "example.org"),
		"two hosts":                        with("host", "example.com", "host", "example.com"),
		"user information":                 {":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a@b"},
		"user information in host":         {":method", "GET", ":scheme", "http", ":path", "/", "host", "a@b"},
		"space in the authority":           {":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a b"},
		"CONNECT with a path":              {":method", "CONNECT", ":path", "/", ":authority", "a:1"},
		"CONNECT with a scheme":            {":method", "CONNECT", ":scheme", "http", ":authority", "a:1"},
		"CONNECT without an authority":     {":method", "CONNECT"},
		"length that is none":              with("content-length", "a"),
		"length with a sign":               with("content-length", "+0"),
		"negative length":                  with("content-length", "-1"),
		"lengths that differ":              with("content-length", "0", "content-length", "1"),
		"list of lengths":                  with("content-length", "0, 0"),
		"length beyond 64 bits":            with("content-length", "99999999999999999999"),
		"length without a body":            with("content-length", "5"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, handle(t, func(response http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(response, "handled")
			}))
			c.headers(1, true, fields...)
			c.awaitReset(1, http2.ErrCodeProtocol)
			c.get(3, "/")
			if a := c.awaitAnswer(3); a.body != "handled" {
				t.Errorf("the next request gets %+v", a)
			}
		})
	}
}

// A request reaches the handler with all that it says, as from net/http's server.
func TestRequestFields(t *testing.T) {
	t.Parallel()
	c := dial(t, handle(t, describe))
	c.headers(1, true, request(http.MethodGet, "/a%20b?c=d", "te", "trailers", "cookie", "a=1", "cookie", "b=2", "x-list", "1", "x-list", "2", "grpc-timeout", "1S")...)
	d := c.awaitDescription(1)
	if d.Method != http.MethodGet || d.RequestURI != "/a%20b?c=d" || d.Path != "/a b" || d.Host != "example.com" || d.ContentLength != 0 {
		t.Errorf("the request is %+v", d)
	}
	want := http.Header{"Te": {"trailers"}, "Cookie": {"a=1; b=2"}, "X-List": {"1", "2"}, "Grpc-Timeout": {"1S"}}
	if fmt.Sprint(d.Header) != fmt.Sprint(want) {
		t.Errorf("its header is %v, want %v", d.Header, want)
	}

	c.headers(3, true, ":method", "GET", ":scheme", "https", ":path", "/", "host", "example.org:8080")
	if d := c.awaitDescription(3); d.Host != "example.org:8080" || d.Header["Host"] != nil {
		t.Errorf("without :authority, the host is %q, and the header %v", d.Host, d.Header)
	}
	c.headers(5, true, request(http.MethodGet, "/", "host", "EXAMPLE.com")...)
	if d := c.awaitDescription(5); d.Host != "example.com" {
		t.Errorf("the host is %q, want that of :authority", d.Host)
	}
	c.headers(7, true, ":method", "OPTIONS", ":scheme", "http", ":path", "*", ":authority", "a")
	if d := c.awaitDescription(7); d.RequestURI != "*" {
		t.Errorf("OPTIONS * is %+v", d)
	}
	c.headers(9, true, ":method", "CONNECT", ":authority", "a:1")
	if d := c.awaitDescription(9); d.RequestURI != "a:1" || d.Host != "a:1" {
		t.Errorf("CONNECT is %+v", d)
	}
}

// Trailers of a request that the field Trailer declares are there after the end of the body.
func TestRequestTrailers(t *testing.T) {
	t.Parallel()
	c := dial(t, handle(t, describe))
	c.post(1, "/", "trailer", "x-sum, Content-Length", "trailer", "x-other")
	c.data(1, false, []byte("body"))
	c.headers(1, true, "x-sum", "1", "x-undeclared", "2")
	d := c.awaitDescription(1)
	if d.Body != "body" || fmt.Sprint(d.Trailer) != fmt.Sprint(http.Header{"X-Sum": {"1"}, "X-Other": nil}) || d.Header["Trailer"] != nil {
		t.Errorf("the request is %+v", d)
	}
	for i, fields := range [][]string{{":path", "/"}, {"X-Sum", "1"}, {"connection", "close"}} {
		stream := uint32(3 + 2*i)
		c.post(stream, "/")
		c.headers(stream, true, fields...)
		c.awaitReset(stream, http2.ErrCodeProtocol)
	}
	c.post(9, "/")
	c.headers(9, false, "x-sum", "1") // Trailers end the stream.
	c.awaitReset(9, http2.ErrCodeProtocol)
	c.post(11, "/")
	c.data(11, true, nil)
	c.headers(11, true, "x-sum", "1")
	c.awaitFailure(http2.ErrCodeStreamClosed)
}

// A header list beyond MaxHeaderBytes is answered with 431, whether it consists of many fields or of one, and one beyond twice of
// it ends the connection.
func TestMaxHeaderBytes(t *testing.T) {
	t.Parallel()
	const limit = 8 << 10
	server := &h2.Server{MaxHeaderBytes: limit, Handler: http.HandlerFunc(describe)}
	address := serve(t, server)
	c := dial(t, address)
	base := 0
	for i, field := range request(http.MethodGet, "/", "a", "") {
		base += len(field) + 32*(i%2)
	}
	c.get(1, "/", "a", strings.Repeat("x", limit-base))
	if a := c.awaitAnswer(1); a.status != "200" {
		t.Errorf("a header list of the limit gets %s", a.status)
	}
	c.get(3, "/", "a", strings.Repeat("x", limit-base+1))
	if a := c.awaitAnswer(3); a.status != "431" {
		t.Errorf("a header list of one byte more gets %s", a.status)
	}
	c.get(5, "/", "a", strings.Repeat("~", limit+limit/4)) // Huffman's code makes it longer, not shorter.
	if a := c.awaitAnswer(5); a.status != "431" {
		t.Errorf("one field beyond the limit gets %s", a.status)
	}
	var many []string
	for range limit / 33 {
		many = append(many, "a", "")
	}
	c.get(7, "/", many...) // Two bytes each, as sent.
	if a := c.awaitAnswer(7); a.status != "431" {
		t.Errorf("many empty fields get %s", a.status)
	}
	c.get(9, "/")
	if a := c.awaitAnswer(9); a.status != "200" {
		t.Errorf("the next request gets %s", a.status)
	}
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 11, BlockFragment: c.write(request(http.MethodGet, "/", "b", strings.Repeat("~", 2*limit))...)[:16<<10], EndHeaders: false}))
	c.must(c.WriteContinuation(11, true, c.block.Bytes()[16<<10:]))
	c.awaitFailure(http2.ErrCodeEnhanceYourCalm)
}

// HPACK's state survives blocks that are dropped: of malformed requests, of refused and of reset streams.
func TestHPACKStateAfterDroppedBlocks(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	server := &h2.Server{MaxStreams: 1, Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if request.URL.Path == "/wait" {
			<-release
		}
		describe(response, request)
	})}
	c := dial(t, serve(t, server))
	c.get(1, "/wait")
	c.get(3, "/", "x-refused", "1") // The encoder puts it into the dynamic table.
	c.awaitReset(3, http2.ErrCodeRefusedStream)
	c.get(5, "/", "x-malformed", "1", "te", "gzip")
	c.awaitReset(5, http2.ErrCodeProtocol)
	c.headers(3, true, "x-dropped", "1") // Trailers that were on the way.
	close(release)
	c.awaitDescription(1)
	c.get(7, "/", "x-refused", "1", "x-malformed", "1", "x-dropped", "1")
	d := c.awaitDescription(7)
	for _, key := range []string{"X-Refused", "X-Malformed", "X-Dropped"} {
		if d.Header.Get(key) != "1" {
			t.Errorf("the header is %v, without %s", d.Header, key)
		}
	}
}

// A header block may come in CONTINUATION frames, of any size, and HEADERS may have padding and a priority.
func TestHeaderBlockInParts(t *testing.T) {
	t.Parallel()
	c := dial(t, handle(t, describe))
	block := bytes.Clone(c.write(request(http.MethodGet, "/", "a", strings.Repeat("b", 100))...))
	c.must(c.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: block[:1], EndStream: true, PadLength: 255, Priority: http2.PriorityParam{StreamDep: 3, Weight: 7, Exclusive: true},
	}))
	for i := range 10 {
		c.must(c.WriteContinuation(1, false, block[1+i:2+i]))
	}
	c.must(c.WriteContinuation(1, true, block[11:]))
	if d := c.awaitDescription(1); len(d.Header.Get("A")) != 100 {
		t.Errorf("the header is %v", d.Header)
	}
}

// Malformed frames and blocks of headers end the connection with the code that RFC 9113 names.
func TestHeaderFrameErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		code http2.ErrCode
		send func(c *client) error
	}{
		"on stream 0": {http2.ErrCodeProtocol, func(c *client) error {
			return c.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 0, c.write(request("GET", "/")...))
		}},
		"even stream": {http2.ErrCodeProtocol, func(c *client) error {
			return c.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 2, c.write(request("GET", "/")...))
		}},
		"stream below the last": {http2.ErrCodeStreamClosed, func(c *client) error {
			c.get(3, "/")
			c.awaitAnswer(3)
			return c.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, c.write(request("GET", "/")...))
		}},
		"padding that is missing": {http2.ErrCodeFrameSize, func(c *client) error {
			return c.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded, 1, nil)
		}},
		"padding that is too long": {http2.ErrCodeProtocol, func(c *client) error {
			return c.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded, 1, []byte{2, 0})
		}},
		"priority that is missing": {http2.ErrCodeFrameSize, func(c *client) error {
			return c.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPriority, 1, make([]byte, 4))
		}},
		"CONTINUATION of nothing": {http2.ErrCodeProtocol, func(c *client) error {
			return c.WriteContinuation(1, true, nil)
		}},
		"CONTINUATION of another stream": {http2.ErrCodeProtocol, func(c *client) error {
			c.must(c.WriteRawFrame(http2.FrameHeaders, 0, 1, nil))
			return c.WriteContinuation(3, true, nil)
		}},
		"another frame within a block": {http2.ErrCodeProtocol, func(c *client) error {
			c.must(c.WriteRawFrame(http2.FrameHeaders, 0, 1, nil))
			return c.WritePing(false, [8]byte{})
		}},
		"index that does not exist": {http2.ErrCodeCompression, func(c *client) error {
			return c.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte{0xff, 0x7f})
		}},
		"block that ends within a field": {http2.ErrCodeCompression, func(c *client) error {
			return c.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte{0x00, 0x05, 'a'})
		}},
		"dynamic table beyond the limit": {http2.ErrCodeCompression, func(c *client) error {
			return c.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte{0x3f, 0xe2, 0x1f}) // 4097 bytes.
		}},
		"PUSH_PROMISE": {http2.ErrCodeProtocol, func(c *client) error {
			return c.WriteRawFrame(http2.FramePushPromise, 0, 1, make([]byte, 4))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, handle(t, describe))
			c.must(test.send(c))
			c.awaitFailure(test.code)
		})
	}
}

// An HPACK bomb, a few bytes that expand to many fields, costs no more than MaxHeaderBytes.
func TestHPACKBomb(t *testing.T) {
	t.Parallel()
	headers := make(chan http.Header, 1)
	c := dial(t, handle(t, func(_ http.ResponseWriter, request *http.Request) { headers <- request.Header }))
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for pair := range slices.Chunk(request(http.MethodGet, "/", "a", strings.Repeat("x", 4000)), 2) {
		_ = encoder.WriteField(hpack.HeaderField{Name: pair[0], Value: pair[1]})
	}
	block.Write(bytes.Repeat([]byte{0x80 | 62}, 16<<10-block.Len())) // The newest entry of the dynamic table, again and again: 50 MB.
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}))
	if a := c.awaitAnswer(1); a.status != "431" {
		t.Errorf("the bomb is answered with %s", a.status)
	}
	if len(headers) != 0 {
		t.Error("the handler is called")
	}
}
