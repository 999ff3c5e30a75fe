// Package routechat is a client of RouteGuide and NoteService, for long-lived RouteChat streams, and for notes that are left
// once, and followed without gaps, in spite of broken connections: HTTP/2 only, with or without TLS, in each protocol of
// Connect, with health checks of the connection and without a timeout for calls.
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
	"example.com/routeguide/gen/routeguide/v1/routeguidev1connect"
)

const (
	// dialTimeout is the timeout of the TCP connect, and of the TLS handshake.
	dialTimeout = 10 * time.Second
	// idleTimeout is the time after which a connection without calls is closed.
	idleTimeout = 90 * time.Second
	// The health check of a connection with calls: a PING after pingAfter without a frame from the server. Without
	// an ACK within pingTimeout, the connection is closed and its calls fail with UNAVAILABLE.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
	// writeTimeout is the time without progress after which a blocked write closes the connection.
	writeTimeout = 30 * time.Second
)

// A Client calls a RouteGuide server. Its methods may be called concurrently. All calls share
// connections. The context of a call is its only timeout.
//
// The errors of calls are of the type [*connect.Error], which has the code.
type Client struct {
	routeguideconnect.RouteGuideClient
	routeguidev1connect.NoteServiceClient

	transport *http.Transport
}

// New returns a client for the server at baseURL, such as http://localhost:50051 (HTTP/2 without
// TLS) or https://example.com (HTTP/2 with TLS). It connects on the first call.
//
// The default is the Connect protocol with binary messages; see [connect.WithGRPC],
// [connect.WithGRPCWeb] and [connect.WithProtoJSON]. RouteChat works with each of them, because the
// client speaks HTTP/2 only.
func New(baseURL string, options ...connect.ClientOption) (*Client, error) {
	return Config{}.New(baseURL, options...)
}

// A Config has the credentials of a client. Its zero value is ready to use.
type Config struct {
	// TLS is the configuration for https URLs: RootCAs if the server's CA is not one of the operating system, and
	// Certificates for mutual TLS. It is not changed.
	TLS *tls.Config
	// Token is a bearer token that each call sends. With an http URL, it is sent in cleartext.
	Token string
}

// New is like the function [New], with the credentials of c.
func (c Config) New(baseURL string, options ...connect.ClientOption) (*Client, error) {
	parsed, err := url.Parse(baseURL)
	if err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
		return nil, fmt.Errorf("%q is not a server URL: want http://host:port or https://host:port", baseURL)
	}
	transport := newTransport(c.TLS)
	httpClient := &http.Client{
		Transport: transport,
		// Do not follow redirects: they would send the token to another server.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if c.Token != "" {
		httpClient.Transport = &tokenTransport{transport, "Bearer " + c.Token}
	}
	return &Client{
		RouteGuideClient:  routeguideconnect.NewRouteGuideClient(httpClient, parsed.String(), options...),
		NoteServiceClient: routeguidev1connect.NewNoteServiceClient(httpClient, parsed.String(), options...),
		transport:         transport,
	}, nil
}

// tokenTransport adds an Authorization header to each request.
type tokenTransport struct {
	*http.Transport

	authorization string
}

func (t *tokenTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", t.authorization)
	return t.Transport.RoundTrip(request)
}

// Close closes idle connections. A connection with calls is closed after it has been idle for 90 seconds.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
}

// proxy returns the proxy from the environment for https URLs. It ignores proxies for http URLs, because they do not
// speak HTTP/2.
func proxy(request *http.Request) (*url.URL, error) {
	if request.URL.Scheme == "http" {
		return nil, nil
	}
	return http.ProxyFromEnvironment(request)
}

// newTransport returns a transport for HTTP/2 only: it must not fall back to HTTP/1.1, which has no bidirectional
// streams. It has no ResponseHeaderTimeout, because a chat may stay silent before its first reply.
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
