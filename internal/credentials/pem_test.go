package credentials_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/routeguide/internal/certtest"
	"example.com/routeguide/internal/credentials"
)

const bom = "\xef\xbb\xbf"

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// encoding/pem ignores a block that does not start its line: the first one after a BOM.
func TestKeyPairAndCertPoolSkipBOM(t *testing.T) {
	t.Parallel()
	certificate, key := certtest.SelfSigned(t)
	other, _ := certtest.SelfSigned(t)
	chain := bom + read(t, certificate) + "an \xfcber-authority\n" + read(t, other)
	pair, err := credentials.KeyPair(write(t, chain), write(t, bom+read(t, key)))
	if err != nil || len(pair.Certificate) != 2 {
		t.Errorf("got %d certificates, %v, want 2", len(pair.Certificate), err)
	}
	both, err := credentials.CertPool(write(t, chain))
	if err != nil {
		t.Fatal(err)
	}
	one, err := credentials.CertPool(other)
	if err != nil {
		t.Fatal(err)
	}
	if one.Equal(both) {
		t.Error("the CA certificate after the BOM is missing")
	}
}

func TestKeyPairAndCertPoolRefuseDamagedFiles(t *testing.T) {
	t.Parallel()
	certificate, key := certtest.SelfSigned(t)
	good := read(t, certificate)
	lines := strings.SplitAfter(good, "\n")
	for name, test := range map[string]struct{ text, want string }{
		"no certificate":        {"nothing", "no certificate in the file"},
		"a key":                 {read(t, key), "no certificate in the file"},
		"UTF-16":                {"\xff\xfe-\x00", "line 1: it begins with a byte order mark of UTF-16"},
		"a damaged second one":  {good + lines[0] + "!" + strings.Join(lines[1:], ""), "1 of 2 certificates are damaged"},
		"a second one cut off":  {good + lines[0] + lines[1], "1 of 2 certificates are damaged"},
		"a second one of zeros": {good + lines[0] + "AAAA\n" + lines[len(lines)-2], "certificate 2: x509"},
	} {
		path := write(t, test.text)
		_, pool := credentials.CertPool(path)
		_, pair := credentials.KeyPair(path, key)
		for _, err := range []error{pool, pair} {
			if err == nil || !strings.Contains(err.Error(), path+": "+test.want) {
				t.Errorf("%s: got %v, want %q", name, err, test.want)
			}
		}
	}
	if _, err := credentials.CertPool(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a missing file is no error")
	}
}
