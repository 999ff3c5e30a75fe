package service_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/internal/notes"
)

// thrift is a codec that servers do not know.
type thrift struct{}

func (thrift) Name() string { return "thrift" }

func (thrift) Marshal(message any) ([]byte, error) { return proto.Marshal(message.(proto.Message)) }

func (thrift) Unmarshal(data []byte, message any) error {
	return proto.Unmarshal(data, message.(proto.Message))
}

// put sends every request by PUT.
type put struct{ http.RoundTripper }

func (p put) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Method = http.MethodPut
	return p.RoundTripper.RoundTrip(request)
}

// A request that is turned away with an explanation has the same code for Connect's clients as it has if the server
// answers with the bare HTTP status, in each protocol. https://github.com/connectrpc/conformance tests that, too.
func TestExplainKeepsTheCodeOfTheBareStatus(t *testing.T) {
	t.Parallel()
	const (
		chat = routeguideconnect.RouteGuideRouteChatProcedure
		get  = routeguideconnect.RouteGuideGetFeatureProcedure
	)
	url, _ := start(t, notes.NewMemory())
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
			text   string // is in the error, unless the client sees only the status
			option connect.ClientOption
			http1  bool
			put    bool
			bidi   bool
		}{
			"404":                {path: get + "Lost", status: 404, code: connect.CodeUnimplemented, text: "nothing at"},
			"404 of a stream":    {path: chat + "Lost", status: 404, code: connect.CodeUnimplemented, text: "nothing at", bidi: true},
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
					_ = stream.Send(nil) // The error comes with Receive.
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

// A method that a procedure does not take is no protocol's, so that the explanation is Connect's JSON, under the status.
func TestExplainOfAWrongMethod(t *testing.T) {
	t.Parallel()
	url, _ := start(t, notes.NewMemory())
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
			explained.Message != test.path+" does not take "+test.method+": it takes "+test.allow {
			t.Errorf("%s %s: got %v, %v, %+v, %v", test.method, test.path, response.Status, response.Header, explained, err)
		}
	}
}
