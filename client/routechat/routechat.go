// Package routechat makes RouteGuide clients whose chats work: over HTTP/2 with and without TLS, in
// every protocol, for as long as the two ends want to talk.
package routechat

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
)

const (
	// dialTimeout is how long a connection, and then its TLS handshake, may take to come about.
	dialTimeout = 10 * time.Second
	// idleTimeout is how long a connection without calls is kept.
	idleTimeout = 90 * time.Second
	// A connection with calls from which nothing comes for pingAfter is sent a PING. It is closed, and
	// its calls fail with UNAVAILABLE, if that is not answered within pingTimeout.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
	// writeTimeout is how long a connection may take none of the bytes that wait for it.
	writeTimeout = 30 * time.Second
)

// A Client calls a RouteGuide server. Its methods may be called concurrently, and all calls share
// connections. A call lasts until its context ends: there is no other timeout.
//
// The errors of calls are of the type [*connect.Error], which has the code.
type Client struct {
	routeguideconnect.RouteGuideClient

	transport *http.Transport
}

// New returns a client for the server at baseURL, such as http://localhost:50051 (HTTP/2 without
// TLS) or https://example.com (HTTP/2 with TLS). It does not connect yet.
//
// By default the client speaks the Connect protocol with binary messages;
// [connect.WithGRPC], [connect.WithGRPCWeb] and [connect.WithProtoJSON] choose otherwise. RouteChat
// works with each of them, since all of them run over HTTP/2.
func New(baseURL string, options ...connect.ClientOption) (*Client, error) {
	return Config{}.New(baseURL, options...)
}

// A Config says how to come in where not everyone may.
type Config struct {
	// TLS is for https URLs: the authorities to trust, if they are not those of the operating system, and
	// the client's own certificate, if the server asks for one. It is not changed.
	TLS *tls.Config
	// Token is sent with every call, as a bearer token. With an http URL, everyone on the way can read it.
	Token string
}

// New returns a client like the function New.
func (c Config) New(baseURL string, options ...connect.ClientOption) (*Client, error) {
	parsed, err := url.Parse(baseURL)
	if err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
		return nil, fmt.Errorf("%q is not the URL of a server: want http://host:port or https://host:port", baseURL)
	}
	transport := newTransport(c.TLS)
	caller := &http.Client{
		Transport: transport,
		// No call is redirected: it would take the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if c.Token != "" {
		caller.Transport = &withToken{transport, "Bearer " + c.Token}
	}
	return &Client{
		RouteGuideClient: routeguideconnect.NewRouteGuideClient(caller, parsed.String(), options...),
		transport:        transport,
	}, nil
}

// withToken sends a token with every request.
type withToken struct {
	*http.Transport

	authorization string
}

func (t *withToken) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", t.authorization)
	return t.Transport.RoundTrip(request)
}

// Close closes the connections that no call uses. Those of calls that go on, or have just ended, are closed
// once no call has used them for 90 seconds.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
}

// proxy returns the proxy of the environment for https URLs. A proxy for http URLs does not speak
// HTTP/2, so those are never called through one.
func proxy(request *http.Request) (*url.URL, error) {
	if request.URL.Scheme == "http" {
		return nil, nil
	}
	return http.ProxyFromEnvironment(request)
}

// newTransport returns a transport that speaks HTTP/2 only: a chat does not work over HTTP/1.1, so it
// is better not to fall back to that. It has no timeout for responses, since the first one of a
// chat comes when there is something to say.
func newTransport(config *tls.Config) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{
		Proxy:               proxy,
		TLSClientConfig:     config.Clone(), // nil stays nil
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		IdleConnTimeout:     idleTimeout,
		Protocols:           &protocols,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout:  pingAfter,
			PingTimeout:      pingTimeout,
			WriteByteTimeout: writeTimeout,
		},
	}
}
