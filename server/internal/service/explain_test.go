package service_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/internal/notes"
)

// Requests that never come to an RPC, or that break off, get a clear error in the protocol that was
// spoken.
func TestBadRequestsGetAClearErrorInTheirProtocol(t *testing.T) {
	t.Parallel()
	const (
		chat = routeguideconnect.RouteGuideRouteChatProcedure
		get  = routeguideconnect.RouteGuideGetFeatureProcedure
	)
	garbage := []byte("this is no note")
	// A frame that promises 100 bytes and has 3.
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
		"a wrong content type":                  {true, get, "text/plain", []byte("hi"), 415, connect.CodeUnknown, `the content type "text/plain"`},
		"a unary content type for a chat":       {false, chat, "application/json", []byte("{}"), 415, connect.CodeUnknown, "application/connect+json"},
		"a codec that there is not, by gRPC":    {false, chat, "application/grpc+thrift", nil, 200, connect.CodeUnknown, "grpc+thrift"},
		"a protocol that is almost gRPC":        {false, chat, "application/grpcx", nil, 415, connect.CodeUnknown, "application/grpcx"},
		"an unknown method, by Connect":         {false, "/routeguide.RouteGuide/GetLost", "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "nothing at /routeguide.RouteGuide/GetLost"},
		"an unknown method, by gRPC":            {false, "/routeguide.RouteGuide/GetLost", "application/grpc", nil, 200, connect.CodeUnimplemented, "nothing at /routeguide.RouteGuide/GetLost"},
		"an unknown method, by gRPC-Web":        {false, "/routeguide.RouteGuide/GetLost", "application/grpc-web+proto", nil, 200, connect.CodeUnimplemented, "nothing at"},
		"a service without a method":            {true, "/routeguide.RouteGuide", "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "nothing at /routeguide.RouteGuide:"},
		"an unknown method of health":           {true, "/grpc.health.v1.Health/Guess", "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "nothing at /grpc.health.v1.Health/Guess"},
		"an unknown method of reflection":       {false, "/grpc.reflection.v1.ServerReflection/Guess", "application/grpc", nil, 200, connect.CodeUnimplemented, "nothing at /grpc.reflection.v1.ServerReflection/Guess"},
		"two slashes, by Connect":               {true, "/" + get, "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "did you mean " + get + "?"},
		"two slashes for a chat, by Connect":    {false, "/" + chat, "application/connect+proto", nil, 200, connect.CodeUnimplemented, "did you mean " + chat + "?"},
		"two slashes, by gRPC":                  {false, "/" + chat, "application/grpc", nil, 200, connect.CodeUnimplemented, "did you mean " + chat + "?"},
		"two slashes, by gRPC-Web":              {false, "/" + get, "application/grpc-web", nil, 200, connect.CodeUnimplemented, "did you mean " + get + "?"},
		"two slashes in the path of health":     {true, "/grpc.health.v1.Health//Check", "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "did you mean /grpc.health.v1.Health/Check?"},
		"a slash at the end":                    {true, get + "/", "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "did you mean " + get + "?"},
		"a dot in a path":                       {true, "/." + get, "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "did you mean " + get + "?"},
		"two dots in a path":                    {true, "/x/.." + get, "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "did you mean " + get + "?"},
		"two slashes and nothing":               {true, "//", "application/json", []byte("{}"), 404, connect.CodeUnimplemented, "nothing at //:"},
		"an unknown service":                    {false, "/a.B/C", "application/grpc", nil, 200, connect.CodeUnimplemented, "nothing at /a.B/C"},
		"the root":                              {true, "/", "text/html", nil, 404, connect.CodeUnimplemented, "nothing at /"},
		"half a frame, by Connect":              {false, chat, "application/connect+proto", truncated, 200, connect.CodeInternal, "promised 100 bytes"},
		"half a frame, by gRPC":                 {false, chat, "application/grpc", truncated, 200, connect.CodeInternal, "promised 100 bytes"},
		"half a frame, by gRPC-Web":             {false, chat, "application/grpc-web", truncated, 200, connect.CodeInternal, "promised 100 bytes"},
		"no note, by Connect":                   {false, chat, "application/connect+proto", frame(garbage), 200, connect.CodeInvalidArgument, "unmarshal"},
		"no note, by Connect JSON":              {false, chat, "application/connect+json", frame(garbage), 200, connect.CodeInvalidArgument, "unmarshal"},
		"no note, by gRPC":                      {false, chat, "application/grpc", frame(garbage), 200, connect.CodeInvalidArgument, "unmarshal"},
		"no note, by gRPC-Web":                  {false, chat, "application/grpc-web", frame(garbage), 200, connect.CodeInvalidArgument, "unmarshal"},
		"no point":                              {true, get, "application/json", garbage, 400, connect.CodeInvalidArgument, "unmarshal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := start(t, notes.NewMemory())
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
			// The server lives on.
			if _, err := dial(t, url).GetFeature(t.Context(), point(1, 1)); err != nil {
				t.Error(err)
			}
		})
	}
}

// readError finds the error in a response, where the protocol of contentType has it.
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
		t.Fatalf("there is no gRPC status in %v, %q", response, body)
	}
	var wire struct {
		Code    connect.Code
		Message string
		Error   *struct {
			Code    connect.Code
			Message string
		}
	}
	if strings.HasPrefix(contentType, "application/connect+") {
		body = body[min(5, len(body)):] // It follows the frame's prefix.
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		t.Fatalf("the body is %q: %v", body, err)
	}
	if wire.Error != nil {
		return wire.Error.Code, wire.Error.Message
	}
	return wire.Code, wire.Message
}

// webTrailer returns the trailer that gRPC-Web has in the last frame of the body.
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
