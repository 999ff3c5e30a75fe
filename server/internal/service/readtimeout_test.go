package service_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/internal/service"
)

// rawChat opens a chat without a client library and sends some bytes. It returns the gRPC number of the code
// that ends the chat, and the error text.
func rawChat(ctx context.Context, url, contentType string, sent []byte) (code, text string, err error) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	body, write := io.Pipe()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+routeguideconnect.RouteGuideRouteChatProcedure, body)
	if err != nil {
		return "", "", err
	}
	request.Header.Set("Content-Type", contentType)
	var writing sync.WaitGroup
	writing.Go(func() { _, _ = write.Write(sent) }) // It fails once the chat has ended.
	defer writing.Wait()
	defer write.Close()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", "", err
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		return "", "", err
	}
	if strings.HasPrefix(contentType, "application/grpc") {
		return response.Header.Get("Grpc-Status") + response.Trailer.Get("Grpc-Status"),
			response.Header.Get("Grpc-Message") + response.Trailer.Get("Grpc-Message"), nil
	}
	var end struct {
		Error struct {
			Code    connect.Code
			Message string
		}
	}
	if err := json.Unmarshal(got[5:], &end); err != nil {
		return "", "", fmt.Errorf("%q: %w", got, err)
	}
	return strconv.Itoa(int(end.Error.Code)), end.Error.Message, nil
}

// partialEnvelope returns the prefix of a message of length bytes, and the first bytes of the message.
func partialEnvelope(length uint32, sent int) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, length), make([]byte, sent)...)
}

// RequestTimeout bounds each message of a chat, but not the silence between messages.
func TestRequestTimeoutAppliesToChatMessages(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	options := bounded()
	options.RequestTimeout = 100 * time.Millisecond
	url, _ := startWith(t, options)
	for _, contentType := range []string{"application/grpc", "application/connect+proto", "application/connect+json"} {
		for _, partial := range [][]byte{partialEnvelope(100, 50), partialEnvelope(100_000, 50), partialEnvelope(100, 0)[:3]} {
			code, text, err := rawChat(t.Context(), url, contentType, partial)
			if code != "4" || !strings.Contains(text, "timed out before it arrived") || err != nil {
				t.Errorf("%s: an envelope that stops after %d bytes ends with %s, %q, %v, want DEADLINE_EXCEEDED and a timeout", contentType, len(partial), code, text, err)
			}
		}
	}
	// Idle time between messages is not bounded.
	options.RequestTimeout = 2 * time.Second // A long message takes a while on a busy machine.
	url, _ = startWith(t, options)
	client := dial(t, url)
	stream, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"a", strings.Repeat("x", 60_000), "b"} {
		if err := stream.Send(note(1, text)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2500 * time.Millisecond)
	}
	if err := stream.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	for range 1 + 2 + 3 {
		if _, err := stream.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	_ = stream.CloseResponse()
}

// A message over MessageBytes is refused as soon as its prefix has arrived.
func TestMessageBytesRefusesLongMessageAtItsPrefix(t *testing.T) {
	t.Parallel()
	url, _ := startWith(t, bounded())
	for _, contentType := range []string{"application/grpc", "application/connect+json"} {
		if code, _, err := rawChat(t.Context(), url, contentType, partialEnvelope(1<<32-1, 10)); code != "8" || err != nil {
			t.Errorf("%s: the start of a message of 4 GiB ends with %s, %v, want RESOURCE_EXHAUSTED", contentType, code, err)
		}
	}
}

// Long notes that have arrived in part count against ArrivingBytes until they end. Short notes do not.
func TestArrivingBytesBoundsPartialNotes(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.ArrivingBytes = 150_000
	url, running := startWith(t, options)
	ctx, cancel := context.WithCancel(t.Context())
	var partial sync.WaitGroup
	partial.Go(func() { _, _, _ = rawChat(ctx, url, "application/grpc", partialEnvelope(100_000, 50_000)) })
	for running.Arriving() == 0 {
		time.Sleep(time.Millisecond)
	}
	code, _, err := rawChat(t.Context(), url, "application/grpc", partialEnvelope(100_000, 50_000))
	if code != "8" || err != nil {
		t.Errorf("a second long message ends with %s, %v, want RESOURCE_EXHAUSTED", code, err)
	}
	client := dial(t, url)
	if _, err := chatOf(t.Context(), client, note(2, "a short one")); err != nil {
		t.Errorf("a short note meanwhile: %v", err)
	}
	cancel()
	partial.Wait()
	for running.Arriving() > 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := chatOf(t.Context(), client, note(2, strings.Repeat("x", 60_000))); err != nil {
		t.Errorf("a long note afterwards: %v", err)
	}
}

// RequestTimeout bounds unary requests, over HTTP/1.1 and HTTP/2, and does not bound a chat.
func TestRequestTimeoutAppliesToUnaryRequest(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	options := bounded()
	options.RequestTimeout = 100 * time.Millisecond
	url, _ := startWith(t, options)
	for _, major := range []int{1, 2} {
		var protocols http.Protocols
		protocols.SetHTTP1(major == 1)
		protocols.SetUnencryptedHTTP2(major == 2)
		transport := &http.Transport{Protocols: &protocols}
		body, write := io.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+routeguideconnect.RouteGuideGetFeatureProcedure, body)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		written := make(chan error, 1)
		go func() {
			_, err := write.Write([]byte(`{"latitude":`))
			written <- err
		}()
		response, err := transport.RoundTrip(request)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				t.Errorf("HTTP/%d: half a request is OK", major)
			}
		}
		_ = write.CloseWithError(errors.New("end of test"))
		<-written
		transport.CloseIdleConnections()
	}
	// The server does not wait for the body of a request that no handler reads.
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 404 ") {
		t.Errorf("half a request to an unknown path: got %.20q, %v", got, err)
	}
	// A chat may last for longer than RequestTimeout.
	client := dial(t, url)
	stream, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := stream.Send(note(1, "a")); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Receive(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(250 * time.Millisecond)
	}
	_, _ = stream.CloseRequest(), stream.CloseResponse()
}

// startWithShortTimeout serves RouteGuide with a RequestTimeout of 100 ms.
func startWithShortTimeout(t *testing.T) (url string, running *service.Service) {
	t.Helper()
	options := bounded()
	options.RequestTimeout = 100 * time.Millisecond
	return startWith(t, options)
}

// awaitTimeout sends a part of a request and waits until it times out. Calls that were open before have then
// lasted for RequestTimeout, too.
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
	got, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || !bytes.Contains(got, []byte(connect.CodeDeadlineExceeded.String())) {
		t.Fatalf("a request that does not arrive gets %q, %v", got, err)
	}
}

// RecordRoute is a client stream: RequestTimeout does not bound it.
func TestRequestTimeoutDoesNotApplyToRecordRoute(t *testing.T) {
	t.Parallel()
	url, running := startWithShortTimeout(t)
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

// The deadline is lifted once the request has arrived. With HTTP/1.1 it would otherwise apply to the connection.
func TestRequestTimeoutIsLiftedOnceRequestHasArrived(t *testing.T) {
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
	body := envelope([]byte("{}"))
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
