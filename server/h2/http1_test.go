package h2_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// clearProtocols are the protocols without TLS, by their versions.
func clearProtocols() map[int]*http.Protocols {
	var one, two http.Protocols
	one.SetHTTP1(true)
	two.SetUnencryptedHTTP2(true)
	return map[int]*http.Protocols{1: &one, 2: &two}
}

// fetch returns the response to a GET.
func fetch(t *testing.T, address string, protocols *http.Protocols) string {
	t.Helper()
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// The context of a request ends with its handler, and on reset and disconnect, as TestBodyThatIsCutOffIsNoEOF shows.
func TestRequestContextEndsWithHandler(t *testing.T) {
	t.Parallel()
	contexts := make(chan context.Context, 1)
	c := dial(t, handle(t, func(_ http.ResponseWriter, request *http.Request) { contexts <- request.Context() }))
	c.get(1, "/")
	c.awaitAnswer(1)
	<-(<-contexts).Done()
}

// Requests of HTTP/1.1 may be pipelined, and a client that half-closes gets the answers.
func TestHTTP1PipeliningAndHalfClose(t *testing.T) {
	t.Parallel()
	conn, err := net.Dial("tcp", handle(t, func(response http.ResponseWriter, request *http.Request) {
		_, _ = io.Copy(response, request.Body)
		_, _ = fmt.Fprint(response, request.Proto, request.URL.Path)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	requests := "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: a\r\n\r\n" +
		"PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
	if _, err := io.WriteString(conn, requests); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	for _, want := range []string{"abcHTTP/1.1/a", "HTTP/1.1/b", "xHTTP/1.1/c"} {
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(response.Body); string(body) != want || err != nil {
			t.Errorf("the response is %q, %v, want %q", body, err, want)
		}
	}
}

// A start that is that of HTTP/2 at first, and then is not, is a bad request of HTTP/1.1, as is half a request.
func TestBadRequestOfHTTP1(t *testing.T) {
	t.Parallel()
	address := handle(t, http.NotFound)
	for _, text := range []string{"PRI * HTTP/1.1\r\n\r\n", "PR", "GET / HTTP/1.1\r\nHost"} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil || len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.1 4") {
			t.Errorf("%q is answered with %q, %v", text, answer, err)
		}
	}
}
