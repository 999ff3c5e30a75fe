// Package pemfile reads certificates from PEM files, and refuses what crypto/tls passes over in silence: a block
// behind a byte order mark, or a damaged one. It does not know what certificates are for.
package pemfile

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

// Pair returns a certificate, with those up to the authority, and its key.
func Pair(certificate, key string) (tls.Certificate, error) {
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

// Pool returns the authorities in a file.
func Pool(path string) (*x509.CertPool, error) {
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

// parse returns all certificates in a text, which has one or more. Text around them is allowed, as are other blocks.
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
	begun := bytes.Count(text, []byte("-----BEGIN "+kind+"-----"))
	switch {
	case begun == 0:
		return nil, errors.New("there is no certificate in it")
	case len(certificates) < begun:
		return nil, fmt.Errorf("%d certificates begin in it, but only %d can be read", begun, len(certificates))
	}
	return certificates, nil
}
