package service_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/internal/service"
)

// startImpatient serves RouteGuide with a short RequestTimeout.
func startImpatient(t *testing.T) (url string, running *service.Service) {
	t.Helper()
	options := bounded()
	options.RequestTimeout = 100 * time.Millisecond
	return startWith(t, options)
}

// awaitTimeout begins a request that does not arrive, and waits until it is ended for that: what was begun before it has
// lasted for RequestTimeout then.
func awaitTimeout(t *testing.T, url string) {
	t.Helper()
	body, write := io.Pipe()
	defer write.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+routeguideconnect.RouteGuideGetFeatureProcedure, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := newHTTP2(t).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || !bytes.Contains(answer, []byte(connect.CodeDeadlineExceeded.String())) {
		t.Fatalf("a request that does not arrive gets %q, %v", answer, err)
	}
}

// RecordRoute streams, and may take as long as it likes.
func TestRecordRouteMayOutlastRequestTimeout(t *testing.T) {
	t.Parallel()
	url, running := startImpatient(t)
	route, err := dial(t, url).RecordRoute(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := route.Send(point(1, 1)); err != nil {
		t.Fatal(err)
	}
	for running.Calls() < 1 {
		time.Sleep(time.Millisecond)
	}
	awaitTimeout(t, url)
	if err := route.Send(point(2, 2)); err != nil {
		t.Error(err)
	}
	if summary, err := route.CloseAndReceive(); err != nil || summary.GetPointCount() != 2 {
		t.Errorf("got %v, %v", summary, err)
	}
}

// A request that has arrived has no deadline any more. With HTTP/1.1 it would be one of the connection.
func TestRequestTimeoutEndsWithTheRequest(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.RequestTimeout = 100 * time.Millisecond
	options.Health = service.NewHealth(slog.New(slog.DiscardHandler))
	url, _ := startWith(t, options)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	body := frame([]byte("{}"))
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+json\r\nContent-Length: %d\r\n\r\n%s",
		healthv1.Health_Watch_FullMethodName, len(body), body); err != nil {
		t.Fatal(err)
	}
	read := bufio.NewReader(conn)
	await := func(status string) {
		t.Helper()
		for {
			line, err := read.ReadString('}')
			if err != nil {
				t.Fatalf("the watch of health ended with %q, %v", line, err)
			}
			if strings.Contains(line, "error") {
				t.Fatalf("the watch of health ended with %q", line)
			}
			if strings.Contains(line, "_STATUS_"+status+`"`) {
				return
			}
		}
	}
	await("SERVING")
	awaitTimeout(t, url)
	options.Health.Leave()
	await("NOT_SERVING")
}
