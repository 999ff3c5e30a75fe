package h2_test

import (
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"

	"example.com/routeguide/internal/pipetest"
	"example.com/routeguide/server/h2"
)

// The differential test sends the same requests to our server and to net/http's. The input chooses them from these tables, one byte each.
//
// It leaves out where we are stricter on purpose: a Content-Length that the body contradicts or that is no number, Host beside :authority, fields
// with white space around them, and te. TestMalformedRequestIsReset and TestRequestContentLength have these.
var (
	diffMethods = []string{"GET", "POST", "HEAD", "PUT", "OPTIONS", "DELETE"}
	diffPaths   = []string{"/", "/a%20b?c=d", "/early", "/large", "/204", "/panic", "/unread", "/trailers", "/304", "/parts", "/flush", "//a/../b", "/redirect"}
	diffFields  = [][]string{
		nil, {"accept", "a"}, {"cookie", "a=b", "cookie", "c=d"}, {"te", "trailers"}, {"x-list", "1", "x-list", "2"},
		{"trailer", "x-sum"}, {"user-agent", ""}, {"x-long", strings.Repeat("long", 1000)},
		{"Upper", "a"}, {"connection", "close"}, {"transfer-encoding", "chunked"}, {"x-bad", "a\r\nb"}, {"bad name", "a"}, {"", "a"}, {":path", "/"}, {":status", "200"},
		{"x\x00", "a"}, {"x-null", "\x00"}, {"keep-alive", "1"},
	}
)

// diffHandler answers with what it gets.
func diffHandler(response http.ResponseWriter, request *http.Request) {
	header := response.Header()
	header.Set("X-Path", request.URL.Path)
	switch request.URL.Path {
	case "/early":
		header.Set("Link", "</a>")
		response.WriteHeader(http.StatusEarlyHints)
	case "/large":
		_, _ = response.Write(make([]byte, 20_000))
	case "/204":
		response.WriteHeader(http.StatusNoContent)
	case "/304":
		header.Set("Content-Length", "100")
		response.WriteHeader(http.StatusNotModified)
	case "/panic":
		panic(http.ErrAbortHandler)
	case "/unread":
		_, _ = io.WriteString(response, "unread")
		return
	case "/trailers":
		header.Set("Trailer", "X-Declared, X-Unset")
		_, _ = io.WriteString(response, "body")
		header.Set("X-Declared", "1")
		header.Set(http.TrailerPrefix+"X-Undeclared", "2")
	case "/flush":
		_, _ = io.WriteString(response, "first")
		if request.Method != http.MethodHead { // To which net/http ends the response here, and we do when the handler ends.
			_ = http.NewResponseController(response).Flush()
		}
		header.Set("X-Late", "1")
	case "/redirect":
		http.Redirect(response, request, "/elsewhere", http.StatusFound)
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	_, _ = fmt.Fprintf(response, "%q", []any{
		request.Method, request.RequestURI, request.URL.Path, request.Host, request.ContentLength, body, request.Header, request.Trailer, request.Proto,
	})
}

// diffClient sends what the input says to one server.
type diffClient struct {
	*client

	next     uint32   // stream to open
	sending  []uint32 // streams whose requests have not ended
	outcomes map[uint32]*answer
	done     map[uint32]bool // streams that have ended
}

// step sends a request, or a frame on a stream that is open, as four bytes of the input say.
func (c *diffClient) step(input []byte) {
	end := input[3]%2 == 0
	if kind := input[0] % 8; len(c.sending) == 0 || kind > 4 {
		c.open(input, end)
	} else {
		i := int(input[1]) % len(c.sending)
		id := c.sending[i]
		end = end || kind == 0
		switch {
		case c.done[id]: // What follows the response is dropped, or is an error: that is up to the server.
		case kind == 0:
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.write("x-sum", "1"), EndStream: true, EndHeaders: true})
		case kind == 1:
			_ = c.WriteDataPadded(id, end, []byte("hello"), make([]byte, input[2]))
		default:
			_ = c.WriteData(id, end, make([]byte, input[2]))
		}
		if end {
			c.sending = slices.Delete(c.sending, i, i+1)
		}
	}
	c.collect()
}

// open sends a request.
func (c *diffClient) open(input []byte, end bool) {
	path, more := diffPaths[int(input[2])%len(diffPaths)], diffFields[int(input[3]/2)%len(diffFields)]
	inParts := path == "/parts" && more == nil // After a malformed field, CONTINUATION is an error of the connection for net/http.
	fields := append(request(diffMethods[int(input[1])%len(diffMethods)], path), more...)
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: c.next, BlockFragment: c.write(fields...), EndStream: end, EndHeaders: !inParts, PadLength: input[0]})
	if inParts {
		_ = c.WriteContinuation(c.next, true, nil)
	}
	if !end {
		c.sending = append(c.sending, c.next)
	}
	c.next += 2
}

// collect adds what has arrived to the outcomes, once nothing more does.
func (c *diffClient) collect() {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.events {
		if e.StreamID == 0 || c.done[e.StreamID] || e.Type == http2.FrameWindowUpdate {
			continue
		}
		if c.outcomes[e.StreamID] == nil {
			c.outcomes[e.StreamID] = &answer{}
		}
		if c.outcomes[e.StreamID].add(e) {
			c.done[e.StreamID] = true
		}
	}
	c.events = nil
}

// outcome says what a client sees of a stream, but for what servers may do as they like.
func (c *diffClient) outcome(id uint32) string {
	a := c.outcomes[id]
	if a == nil {
		return "none"
	}
	if a.reset || a.status == "400" { // For malformed requests, net/http has both.
		return "refused"
	}
	delete(a.header, "date")
	if length := a.header["content-length"]; length != nil && (len(length[0]) > 3 || a.trailer != nil) {
		delete(a.header, "content-length") // Of a response that net/http holds back, and we do not.
	}
	return fmt.Sprint(a.informational, a.status, a.header, a.trailer, a.body, c.done[id])
}

// diffServers are ours and net/http's.
func diffServers() map[string]func(t *testing.T, listener *pipetest.Listener) {
	return map[string]func(t *testing.T, listener *pipetest.Listener){
		"h2": func(t *testing.T, listener *pipetest.Listener) {
			t.Helper()
			start(t, &h2.Server{Handler: http.HandlerFunc(diffHandler)}, listener)
		},
		"net/http": func(t *testing.T, listener *pipetest.Listener) {
			t.Helper()
			server := &http.Server{Handler: http.HandlerFunc(diffHandler), Protocols: clearProtocols()[2], ErrorLog: log.New(io.Discard, "", 0)}
			served := make(chan error, 1)
			go func() { served <- server.Serve(listener) }()
			t.Cleanup(func() {
				_ = server.Close()
				<-served
			})
		},
	}
}

// FuzzDifferential sends the same frames to our server and to net/http's, and compares the responses.
func FuzzDifferential(f *testing.F) {
	randomInputs(f, 100, 60)
	f.Fuzz(func(t *testing.T, input []byte) {
		outcomes := make(map[string]map[uint32]string)
		for name, serve := range diffServers() {
			synctest.Test(t, func(t *testing.T) {
				listener := pipetest.Listen()
				serve(t, listener)
				c := &diffClient{client: newClient(t, listener.Dial(t), initialWindow(1<<30)), next: 1, outcomes: make(map[uint32]*answer), done: make(map[uint32]bool)}
				_ = c.WriteWindowUpdate(0, 1<<30)
				for chunk := range slices.Chunk(input[:min(len(input), 400)], 4) {
					if len(chunk) == 4 {
						c.step(chunk)
					}
				}
				for _, id := range c.sending {
					if !c.done[id] {
						_ = c.WriteData(id, true, nil)
						c.collect()
					}
				}
				outcomes[name] = make(map[uint32]string)
				for id := uint32(1); id < c.next; id += 2 {
					outcomes[name][id] = c.outcome(id)
				}
				c.close()
			})
		}
		for _, id := range slices.Sorted(maps.Keys(outcomes["h2"])) {
			if ours, theirs := outcomes["h2"][id], outcomes["net/http"][id]; ours != theirs {
				t.Errorf("stream %d: h2 answers\n%.3000q, and net/http\n%.3000q", id, ours, theirs)
			}
		}
	})
}
