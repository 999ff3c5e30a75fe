package httpserver

import (
	"crypto/tls"
	"log/slog"

	"example.com/routeguide/internal/credentials"
	"example.com/routeguide/server/internal/reload"
)

// TLSFiles are paths of PEM files. The files are reloaded when they change.
type TLSFiles struct {
	// Certificate and Key are the certificate chain of the server and its private key.
	Certificate, Key string
	// ClientCA has the CA certificates for client certificates (mutual TLS). Empty means that clients need none.
	ClientCA string
}

// Config returns a configuration for TLS 1.2 and 1.3, with the cipher suites that HTTP/2 allows
// (https://www.rfc-editor.org/rfc/rfc9113#section-9.2).
func (f *TLSFiles) Config(logger *slog.Logger) (*tls.Config, error) {
	paths := []string{f.Certificate, f.Key}
	if f.ClientCA != "" {
		paths = append(paths, f.ClientCA)
	}
	files, err := reload.New(f.load, logger, paths...)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return files.Get(), nil
		},
	}, nil
}

func (f *TLSFiles) load() (*tls.Config, error) {
	certificate, err := credentials.KeyPair(f.Certificate, f.Key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos: []string{"h2", "http/1.1"},
	}
	if f.ClientCA != "" {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		if config.ClientCAs, err = credentials.CertPool(f.ClientCA); err != nil {
			return nil, err
		}
	}
	return config, nil
}
