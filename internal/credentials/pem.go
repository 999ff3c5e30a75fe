package credentials

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"example.com/routeguide/internal/textfile"
)

// KeyPair reads a certificate chain and its private key from PEM files. Unlike [tls.LoadX509KeyPair], it skips a byte
// order mark, and refuses a file with a damaged block instead of ignoring that block.
func KeyPair(certificate, key string) (tls.Certificate, error) {
	certificatePEM, err := read(certificate)
	if err != nil {
		return tls.Certificate{}, err
	}
	if _, err := parse(certificatePEM); err != nil {
		return tls.Certificate{}, fmt.Errorf("%s: %w", certificate, err)
	}
	keyPEM, err := read(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(certificatePEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s, %s: %w", certificate, key, err)
	}
	return pair, nil
}

// CertPool reads CA certificates from a PEM file, with the same checks as [KeyPair].
func CertPool(path string) (*x509.CertPool, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	certificates, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	pool := x509.NewCertPool()
	for _, certificate := range certificates {
		pool.AddCert(certificate)
	}
	return pool, nil
}

func read(path string) ([]byte, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	text, err := textfile.Decode(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// parse returns the certificates in a PEM file. None is an error. It ignores blocks of other types, and text between
// blocks.
func parse(text []byte) ([]*x509.Certificate, error) {
	const kind = "CERTIFICATE"
	var certificates []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != kind {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certificates)+1, err)
		}
		certificates = append(certificates, certificate)
	}
	// pem.Decode skips damaged blocks.
	blocks := bytes.Count(text, []byte("-----BEGIN "+kind+"-----"))
	switch {
	case blocks == 0:
		return nil, errors.New("no certificate in the file")
	case len(certificates) < blocks:
		return nil, fmt.Errorf("%d of %d certificates are damaged", blocks-len(certificates), blocks)
	}
	return certificates, nil
}
