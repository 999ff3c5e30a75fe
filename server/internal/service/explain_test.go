package service_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/internal/notes/memorystore"
)

// Requests that match no RPC, and truncated or malformed requests, get an error in their own protocol.
func TestExplainBadRequestsInEachProtocol(t *testing.T) {
	t.Parallel()
	const (
		chat = routeguideconnect.RouteGuideRouteChatProcedure
		get  = routeguideconnect.RouteGuideGetFeatureProcedure
	)
	garbage := []byte("this is no note")
	// An envelope that announces 100 bytes and has 3.
	truncated := []byte{0, 0, 0, 0, 100, 1, 2, 3}
	for name, test := range map[string]struct {
		http1             bool
		path, contentType string
		body              []byte
		status            int
		code              connect.Code
		text              string
	}{
		"a chat over HTTP/1.1, by Connect":      {true, chat, "application/connect+proto", nil, 200, connect.CodeUnknown, "needs HTTP/2"},
		"a chat over HTTP/1.1, by Connect JSON": {true, chat, "application/connect+json", nil, 200, connect.CodeUnknown, "needs HTTP/2"},
		"a chat over HTTP/1.1, by gRPC":         {true, chat, "application/grpc", nil, 200, connect.CodeUnknown, "needs HTTP/2"},
		"a chat over HTTP/1.1, by gRPC-Web":     {true, chat, "application/grpc-web", nil, 200, connect.CodeUnknown, "needs HTTP/2"},
		"a chat over HTTP/1.1, by curl":         {true, chat, "application/json", []byte("{}"), 505, connect.CodeUnknown, "--http2-prior-knowledge"},
		"a wrong content type":                  {true, get, "text/plain", []byte("hi"), 415, connect.CodeUnknown, `content type "text/plain"`},
		"a unary content type for a chat":       {false, chat, "application/json", []byte("{}"), 415, connect.CodeUnknown, "application/connect+json"},
		"a codec that there is not, by gRPC":    {false, chat, "application/grpc+thrift", nil, 200, connect.CodeUnknown, "grpc+thrift"},
		"a protocol that is almost gRPC":        {false, chat, "application/grpcx", nil, 415, connect.CodeUnknown, "application/grpcx"},
		"an unknown method, by Connect":         {false, "/routeguide.RouteGuide/GetLost", "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "no method at /routeguide.RouteGuide/GetLost"},
		"an unknown method, by gRPC":            {false, "/routeguide.RouteGuide/GetLost", "application/grpc", nil, 200, connect.CodeUnimplemented, "no method at /routeguide.RouteGuide/GetLost"},
		"an unknown method, by gRPC-Web":        {false, "/routeguide.RouteGuide/GetLost", "application/grpc-web+proto", nil, 200, connect.CodeUnimplemented, "no method at"},
		"a service without a method":            {true, "/routeguide.RouteGuide", "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "no method at /routeguide.RouteGuide:"},
		"an unknown method of health":           {true, "/grpc.health.v1.Health/Guess", "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "no method at /grpc.health.v1.Health/Guess"},
		"an unknown method of reflection":       {false, "/grpc.reflection.v1.ServerReflection/Guess", "application/grpc", nil, 200, connect.CodeUnimplemented, "no method at /grpc.reflection.v1.ServerReflection/Guess"},
		"two slashes, by Connect":               {true, "/" + get, "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "did you mean " + get + "?"},
		"two slashes for a chat, by Connect":    {false, "/" + chat, "application/connect+proto", nil, 200, connect.CodeUnimplemented, "did you mean " + chat + "?"},
		"two slashes, by gRPC":                  {false, "/" + chat, "application/grpc", nil, 200, connect.CodeUnimplemented, "did you mean " + chat + "?"},
		"two slashes, by gRPC-Web":              {false, "/" + get, "application/grpc-web", nil, 200, connect.CodeUnimplemented, "did you mean " + get + "?"},
		"two slashes in the path of health":     {true, "/grpc.health.v1.Health//Check", "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "did you mean /grpc.health.v1.Health/Check?"},
		"a slash at the end":                    {true, get + "/", "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "did you mean " + get + "?"},
		"a dot in a path":                       {true, "/." + get, "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "did you mean " + get + "?"},
		"two dots in a path":                    {true, "/x/.." + get, "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "did you mean " + get + "?"},
		"two slashes and nothing":               {true, "//", "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "no method at //:"},
		"an unknown service":                    {false, "/a.B/C", "application/grpc", nil, 200, connect.CodeUnimplemented, "no method at /a.B/C"},
		"the root":                              {true, "/", "text/html", nil, 404, connect.CodeUnimplemented, "no method at /"},
		"half an envelope, by Connect":          {false, chat, "application/connect+proto", truncated, 200, connect.CodeInternal, "promised 100 bytes"},
		"half an envelope, by gRPC":             {false, chat, "application/grpc", truncated, 200, connect.CodeInternal, "promised 100 bytes"},
		"half an envelope, by gRPC-Web":         {false, chat, "application/grpc-web", truncated, 200, connect.CodeInternal, "promised 100 bytes"},
		"no note, by Connect":                   {false, chat, "application/connect+proto", envelope(garbage), 200, connect.CodeInvalidArgument, "unmarshal"},
		"no note, by Connect JSON":              {false, chat, "application/connect+json", envelope(garbage), 200, connect.CodeInvalidArgument, "unmarshal"},
		"no note, by gRPC":                      {false, chat, "application/grpc", envelope(garbage), 200, connect.CodeInvalidArgument, "unmarshal"},
		"no note, by gRPC-Web":                  {false, chat, "application/grpc-web", envelope(garbage), 200, connect.CodeInvalidArgument, "unmarshal"},
		"no point":                              {true, get, "application/json", garbage, 400, connect.CodeInvalidArgument, "unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := start(t, memorystore.New())
			var protocols http.Protocols
			protocols.SetHTTP1(test.http1)
			protocols.SetUnencryptedHTTP2(!test.http1)
			transport := &http.Transport{Protocols: &protocols}
			defer transport.CloseIdleConnections()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+test.path, bytes.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", test.contentType)
			response, err := (&http.Client{Transport: transport}).Do(request)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			code, text := readError(t, test.contentType, response, body)
			if response.StatusCode != test.status || code != test.code || !strings.Contains(text, test.text) {
				t.Errorf("got the status %d, the code %v, %q; want %d, %v, %q", response.StatusCode, code, text, test.status, test.code, test.text)
			}
			// The server still serves.
			if _, err := dial(t, url).GetFeature(t.Context(), point(1, 1)); err != nil {
				t.Error(err)
			}
		})
	}
}

// readError returns the error in a response, from the place that the protocol of contentType has for it.
func readError(t *testing.T, contentType string, response *http.Response, body []byte) (code connect.Code, text string) {
	t.Helper()
	if strings.HasPrefix(contentType, "application/grpc") && response.StatusCode == http.StatusOK {
		for _, header := range []http.Header{response.Header, response.Trailer, webTrailer(body)} {
			if status := header.Get("Grpc-Status"); status != "" {
				var number connect.Code
				for _, digit := range status {
					number = number*10 + connect.Code(digit-'0')
				}
				return number, header.Get("Grpc-Message")
			}
		}
		t.Fatalf("no gRPC status in %v, %q", response, body)
	}
	var decoded struct {
		Code    connect.Code
		Message string
		Error   *struct {
			Code    connect.Code
			Message string
		}
	}
	if strings.HasPrefix(contentType, "application/connect+") {
		body = body[min(5, len(body)):] // The JSON follows the envelope's prefix.
	}
	if err := json.Unmarshal(body, &decoded); err != nil {
		t.Fatalf("the body is %q: %v", body, err)
	}
	if decoded.Error != nil {
		return decoded.Error.Code, decoded.Error.Message
	}
	return decoded.Code, decoded.Message
}

// webTrailer returns the trailer in the last envelope of a gRPC-Web body.
func webTrailer(body []byte) http.Header {
	trailer := make(http.Header)
	for len(body) >= 5 {
		end := 5 + int(binary.BigEndian.Uint32(body[1:5]))
		if body[0]&0x80 != 0 {
			for line := range strings.SplitSeq(string(body[5:end]), "\r\n") {
				name, value, _ := strings.Cut(line, ":")
				trailer.Set(name, strings.TrimSpace(value))
			}
		}
		body = body[end:]
	}
	return trailer
}

// thrift is a codec that the server does not support.
type thrift struct{}

func (thrift) Name() string { return "thrift" }

func (thrift) Marshal(message any) ([]byte, error) { return proto.Marshal(message.(proto.Message)) }

func (thrift) Unmarshal(data []byte, message any) error {
	return proto.Unmarshal(data, message.(proto.Message))
}

// put sends every request with the method PUT.
type put struct{ http.RoundTripper }

func (p put) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Method = http.MethodPut
	return p.RoundTripper.RoundTrip(request)
}

// In each protocol, Connect's clients see the same code for an explained error as for the bare HTTP status.
// https://github.com/connectrpc/conformance tests that, too.
func TestExplainKeepsCodeOfBareStatus(t *testing.T) {
	t.Parallel()
	const (
		chat = routeguideconnect.RouteGuideRouteChatProcedure
		get  = routeguideconnect.RouteGuideGetFeatureProcedure
	)
	url, _ := start(t, memorystore.New())
	var http1, http2 http.Protocols
	http1.SetHTTP1(true)
	http2.SetUnencryptedHTTP2(true)
	for protocol, option := range map[string]connect.ClientOption{
		"connect": connect.WithClientOptions(),
		"grpc":    connect.WithGRPC(),
		"grpcweb": connect.WithGRPCWeb(),
	} {
		for name, test := range map[string]struct {
			path   string
			status int
			code   connect.Code
			text   string // part of the error text; empty if the client sees the status only
			option connect.ClientOption
			http1  bool
			put    bool
			bidi   bool
		}{
			"404":                {path: get + "Lost", status: 404, code: connect.CodeUnimplemented, text: "no method at"},
			"404 of a stream":    {path: chat + "Lost", status: 404, code: connect.CodeUnimplemented, text: "no method at", bidi: true},
			"404 of two slashes": {path: "/" + get, status: 404, code: connect.CodeUnimplemented, text: "did you mean " + get},
			"405":                {path: get, status: 405, code: connect.CodeUnknown, put: true},
			"405 of a stream":    {path: chat, status: 405, code: connect.CodeUnknown, put: true, bidi: true},
			"415":                {path: get, status: 415, code: connect.CodeUnknown, text: "content type", option: connect.WithCodec(thrift{})},
			"415 of a stream":    {path: chat, status: 415, code: connect.CodeUnknown, text: "content type", option: connect.WithCodec(thrift{}), bidi: true},
			"505":                {path: chat, status: 505, code: connect.CodeUnknown, text: "needs HTTP/2", http1: true},
		} {
			t.Run(protocol+" "+name, func(t *testing.T) {
				t.Parallel()
				bare := httptest.NewUnstartedServer(http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
					response.WriteHeader(test.status)
				}))
				bare.Config.Protocols = new(http.Protocols)
				bare.Config.Protocols.SetHTTP1(true)
				bare.Config.Protocols.SetUnencryptedHTTP2(true)
				bare.Start()
				defer bare.Close()
				transport := &http.Transport{Protocols: &http2}
				if test.http1 {
					transport.Protocols = &http1
				}
				defer transport.CloseIdleConnections()
				caller := &http.Client{Transport: transport}
				if test.put {
					caller.Transport = put{transport}
				}
				options := []connect.ClientOption{option}
				if test.option != nil {
					options = append(options, test.option)
				}
				call := func(url string) error {
					client := connect.NewClient[routeguide.Point, routeguide.Feature](caller, url+test.path, options...)
					if !test.bidi {
						_, err := client.CallUnary(t.Context(), connect.NewRequest(&routeguide.Point{}))
						return err
					}
					stream := client.CallBidiStream(t.Context())
					defer stream.CloseResponse()
					_ = stream.Send(nil) // Receive returns the error.
					_ = stream.CloseRequest()
					_, err := stream.Receive()
					return err
				}
				checkCode(t, call(bare.URL), test.code)
				err := call(url)
				checkCode(t, err, test.code)
				if !strings.Contains(err.Error(), test.text) {
					t.Errorf("the error is %v, want %q in it", err, test.text)
				}
			})
		}
	}
}

// A request with the wrong HTTP method belongs to no protocol: the explanation is Connect's JSON error, with
// status 405.
func TestExplainMethodNotAllowed(t *testing.T) {
	t.Parallel()
	url, _ := start(t, memorystore.New())
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for _, test := range []struct{ method, path, contentType, allow string }{
		{http.MethodPut, routeguideconnect.RouteGuideGetFeatureProcedure, "application/json", "GET, POST"},
		{http.MethodPut, routeguideconnect.RouteGuideGetFeatureProcedure, "application/grpc", "GET, POST"},
		{http.MethodDelete, routeguideconnect.RouteGuideListFeaturesProcedure, "application/connect+json", "POST"},
		{http.MethodGet, routeguideconnect.RouteGuideRecordRouteProcedure, "", "POST"},
		{http.MethodGet, routeguideconnect.RouteGuideListFeaturesProcedure, "application/grpc-web", "POST"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), test.method, url+test.path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", test.contentType)
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		var explained struct {
			Code    connect.Code
			Message string
		}
		err = json.NewDecoder(response.Body).Decode(&explained)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") != test.allow ||
			response.Header.Get("Content-Type") != "application/json" || explained.Code != connect.CodeUnknown ||
			explained.Message != test.path+" does not allow "+test.method+" (allowed: "+test.allow+")" {
			t.Errorf("%s %s: got %v, %v, %+v, %v", test.method, test.path, response.Status, response.Header, explained, err)
		}
	}
}
