package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"

	"connectrpc.com/grpchealth"

	"example.com/routeguide/internal/command"
	"example.com/routeguide/server/internal/auth"
	"example.com/routeguide/server/internal/httpserver"
)

// healthPaths need no token, since load balancers call them.
var healthPaths = []string{
	"/" + grpchealth.HealthV1ServiceName + "/Check",
	"/" + grpchealth.HealthV1ServiceName + "/List",
	"/" + grpchealth.HealthV1ServiceName + "/Watch",
}

// accessFlags are TLS, authentication, and cross-origin requests.
type accessFlags struct {
	TLSCert     string     `name:"tls-cert" placeholder:"FILE" help:"Serve TLS with the certificate in this file (PEM, with its chain). It is read again when it changes."`
	TLSKey      string     `name:"tls-key" placeholder:"FILE" help:"The private key of the certificate (PEM)."`
	ClientCA    string     `name:"client-ca" placeholder:"FILE" help:"Require a client certificate that an authority in this file has signed (PEM)."`
	Tokens      string     `placeholder:"FILE" help:"Require a bearer token from this file: one a line, or as sha256:HEX. Health checks need none. It is read again when it changes."`
	CORSOrigins originList `name:"cors-origins" placeholder:"ORIGIN,..." help:"Allow pages from these origins, such as https://example.com, to make unary and server-streaming calls; * is every page. Off by default."`
	Insecure    bool       `help:"Allow --tokens without TLS, and --admin on an address that others can reach."`
}

func (f *accessFlags) check(ctx context.Context, listen string) error {
	switch {
	case (f.TLSCert == "") != (f.TLSKey == ""):
		return command.Usagef("--tls-cert and --tls-key go together")
	case f.ClientCA != "" && f.TLSCert == "":
		return command.Usagef("--client-ca goes with --tls-cert and --tls-key")
	case f.Tokens != "" && f.TLSCert == "" && !f.Insecure && !isLoopback(ctx, listen):
		return command.Usagef("--tokens on %s would be sent in cleartext: add --tls-cert and --tls-key, or --insecure if another layer encrypts the connection", listen)
	default:
		return nil
	}
}

// tls returns the TLS configuration, or nil for cleartext.
func (f *accessFlags) tls(logger *slog.Logger) (*tls.Config, error) {
	if f.TLSCert == "" {
		return nil, nil //nolint:nilnil // nil is cleartext.
	}
	config, err := (&httpserver.TLSFiles{Certificate: f.TLSCert, Key: f.TLSKey, ClientCA: f.ClientCA}).Config(logger)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert, --tls-key, --client-ca: %w", err)
	}
	return config, nil
}

// require returns the authentication middleware, or nil if no token is required.
func (f *accessFlags) require(logger *slog.Logger) (func(http.Handler) http.Handler, error) {
	if f.Tokens == "" {
		return nil, nil //nolint:nilnil // nil is no authentication.
	}
	tokens, err := auth.NewTokens(f.Tokens, logger, healthPaths...)
	if err != nil {
		return nil, fmt.Errorf("--tokens %s: %w", f.Tokens, err)
	}
	return tokens.Require, nil
}
