package service_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
)

// rawChat begins a chat by hand and sends some bytes of it. It returns the code that the server ends the chat with, as
// gRPC numbers it, and the text.
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
	writing.Go(func() { _, _ = write.Write(sent) }) // An error says that the chat has ended.
	defer writing.Wait()
	defer write.Close()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
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
	if err := json.Unmarshal(answer[5:], &end); err != nil {
		return "", "", fmt.Errorf("%q: %w", answer, err)
	}
	return strconv.Itoa(int(end.Error.Code)), end.Error.Message, nil
}

// started returns the prefix of a message of some length, and some bytes of it.
func started(length uint32, some int) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, length), make([]byte, some)...)
}

func TestAMessageArrivesInTime(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.RequestTimeout = 100 * time.Millisecond
	url, _ := startWith(t, options)
	for _, contentType := range []string{"application/grpc", "application/connect+proto", "application/connect+json"} {
		for _, length := range []uint32{100, 100_000} {
			code, text, err := rawChat(t.Context(), url, contentType, started(length, 50))
			if code != "4" || !strings.Contains(text, "did not arrive in time") || err != nil {
				t.Errorf("%s: a message of %d bytes that stops after 50 ends with %s, %q, %v, want DEADLINE_EXCEEDED, and that it is late", contentType, length, code, text, err)
			}
		}
	}
	// There may be silence between messages.
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

func TestAMessageThatIsTooLongIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	url, _ := startWith(t, bounded())
	for _, contentType := range []string{"application/grpc", "application/connect+json"} {
		if code, _, err := rawChat(t.Context(), url, contentType, started(1<<32-1, 10)); code != "8" || err != nil {
			t.Errorf("%s: 4 GiB that have begun end with %s, %v, want RESOURCE_EXHAUSTED", contentType, code, err)
		}
	}
}

func TestOnlySoMuchMayBeOnItsWay(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.ArrivingBytes = 150_000
	url, running := startWith(t, options)
	ctx, cancel := context.WithCancel(t.Context())
	var half sync.WaitGroup
	half.Go(func() { _, _, _ = rawChat(ctx, url, "application/grpc", started(100_000, 50_000)) })
	for running.Arriving() == 0 {
		time.Sleep(time.Millisecond)
	}
	code, _, err := rawChat(t.Context(), url, "application/grpc", started(100_000, 50_000))
	if code != "8" || err != nil {
		t.Errorf("a second long message ends with %s, %v, want RESOURCE_EXHAUSTED", code, err)
	}
	client := dial(t, url)
	if _, err := chatOf(t.Context(), client, note(2, "a short one")); err != nil {
		t.Errorf("a short note meanwhile: %v", err)
	}
	cancel()
	half.Wait()
	for running.Arriving() > 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := chatOf(t.Context(), client, note(2, strings.Repeat("x", 60_000))); err != nil {
		t.Errorf("a long note afterwards: %v", err)
	}
}

func TestARequestArrivesInTime(t *testing.T) {
	t.Parallel()
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
		_ = write.CloseWithError(errors.New("over"))
		<-written
		transport.CloseIdleConnections()
	}
	// Nor is one waited for that nobody reads.
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
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 404 ") {
		t.Errorf("half a request to nowhere: got %.20q, %v", answer, err)
	}
	// A chat takes its time.
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
