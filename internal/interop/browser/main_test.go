package browser

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"example.com/routeguide/internal/certtest"
	"example.com/routeguide/internal/process"
	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"
)

// pictures is the folder of the pictures that tests leave.
const pictures = "pictures"

// patience is the deadline of each event that a test waits for. It is far longer than the event needs, since machines of CI
// are slow.
const patience = 30 * time.Second

var (
	// ourServer is the path of the server under test.
	ourServer string
	// chromium is the context of the browser, which all tests share. Each page has a profile of its own in it.
	chromium context.Context
	// certificate and key are the paths of PEM files. The browser trusts this certificate.
	certificate, key string
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := withBrowser(m.Run)
	if err == nil {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// withBrowser runs the tests with the server built and the browser started, and ends the browser.
func withBrowser(run func() int) (code int, err error) {
	folder, err := os.MkdirTemp("", "browser")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(folder)
	if ourServer, err = process.Build("../../..", "example.com/routeguide/server", folder); err != nil {
		return 0, err
	}
	if certificate, key, err = certtest.WriteSelfSigned(folder); err != nil {
		return 0, err
	}
	pin, err := publicKeyPin(certificate)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(os.RemoveAll(pictures), os.Mkdir(pictures, 0o755)); err != nil {
		return 0, err
	}
	program, err := exec.LookPath("chromium")
	if err != nil {
		return 0, fmt.Errorf("chromium is not installed: run `make tools`, or install it with your system's packages: %w", err)
	}
	allocator, freeAllocator := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.UserDataDir(filepath.Join(folder, "profile")),
		chromedp.WindowSize(1280, 800),
		chromedp.Flag("ignore-certificate-errors-spki-list", pin),
	)...)
	defer freeAllocator()
	browser, cancel := chromedp.NewContext(allocator)
	defer cancel()
	if err := chromedp.Do(browser); err != nil {
		return 0, fmt.Errorf("start %s: %w", program, err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(browser, patience)
		defer cancel()
		err = errors.Join(err, chromedp.Cancel(closing))
	}()
	chromium = browser //nolint:fatcontext // All tests share it.
	return run(), nil
}

// publicKeyPin returns the SHA-256 of the public key of a certificate, as the browser's flag wants it.
func publicKeyPin(path string) (string, error) {
	encoded, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(encoded)
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(parsed.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}
