package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/internal/command"
	"example.com/routeguide/internal/credentials"
	"example.com/routeguide/internal/textfile"
)

// accessFlags are the credentials for servers that authenticate clients, and the CA that authenticates the server.
type accessFlags struct {
	CA       string `name:"ca" placeholder:"FILE" help:"CA certificates that authenticate the server (PEM), instead of those of the operating system."`
	Cert     string `placeholder:"FILE" help:"Client certificate for mutual TLS (PEM)."`
	Key      string `placeholder:"FILE" help:"Private key of the client certificate (PEM)."`
	Token    string `placeholder:"TOKEN|@FILE" help:"Bearer token, or a file that contains it."`
	Insecure bool   `help:"Allow --token in cleartext to a server on another machine."`
}

func (f *accessFlags) config(addr string) (routechat.Config, error) {
	var config routechat.Config
	if f.CA != "" || f.Cert != "" || f.Key != "" {
		tls, err := f.tls()
		if err != nil {
			return config, err
		}
		config.TLS = tls
	}
	token, err := f.token()
	if err != nil {
		return config, err
	}
	config.Token = token
	if config.Token != "" && !f.Insecure && inClear(addr) {
		return config, command.Usagef("--token would go to another machine in cleartext: use an https:// URL, or --insecure if something else encrypts the connection")
	}
	return config, nil
}

// token returns the bearer token, or "" if there is none.
func (f *accessFlags) token() (string, error) {
	path, isFile := strings.CutPrefix(f.Token, "@")
	if !isFile {
		if f.Token == "" {
			return "", nil
		}
		if err := credentials.CheckToken(f.Token); err != nil {
			return "", command.Usagef("--token: %w", err)
		}
		return f.Token, nil
	}
	file, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("--token: %w", err)
	}
	text, err := textfile.Decode(file)
	if err != nil {
		return "", fmt.Errorf("--token @%s: %w", path, err)
	}
	token := string(bytes.TrimSpace(text))
	if err := credentials.CheckToken(token); err != nil {
		return "", fmt.Errorf("--token @%s: want one token and nothing else: %w", path, err)
	}
	return token, nil
}

func (f *accessFlags) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if (f.Cert == "") != (f.Key == "") {
		return nil, command.Usagef("--cert and --key go together")
	}
	if f.Cert != "" {
		certificate, err := credentials.KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("--cert, --key: %w", err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	if f.CA != "" {
		pool, err := credentials.CertPool(f.CA)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		config.RootCAs = pool
	}
	return config, nil
}

// inClear returns whether traffic to a URL leaves this machine without TLS.
func inClear(addr string) bool {
	parsed, err := url.Parse(addr)
	if err != nil || parsed.Scheme != "http" {
		return false
	}
	ip, err := netip.ParseAddr(parsed.Hostname())
	return parsed.Hostname() != "localhost" && (err != nil || !ip.IsLoopback())
}
