package service_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/internal/notes"
)

func TestDrainEndsEveryKindOfStream(t *testing.T) {
	t.Parallel()
	store := notes.NewMemory()
	url, running := start(t, store)
	client := dial(t, url)
	chat := openChat(t, client)
	route, err := client.RecordRoute(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := route.Send(point(1, 1)); err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	health := grpchealth.NewClient(&http.Client{Transport: transport}, url)
	watching := health.Watch(t.Context(), &grpchealth.CheckRequest{Service: routeguideconnect.RouteGuideName})
	if event := <-watching; event.Err != nil || event.Response.Status != grpchealth.StatusServing {
		t.Errorf("health is %v, %v before the drain", event.Response, event.Err)
	}

	running.Drain()

	_, err = chat.Receive()
	checkCode(t, err, connect.CodeUnavailable)
	_ = chat.CloseRequest()
	_ = chat.CloseResponse()
	_, err = route.CloseAndReceive()
	checkCode(t, err, connect.CodeUnavailable)
	if event := <-watching; event.Err != nil || event.Response.Status != grpchealth.StatusNotServing {
		t.Errorf("health is %v, %v during the drain", event.Response, event.Err)
	}
	event := <-watching
	checkCode(t, event.Err, connect.CodeUnavailable)
	if health, err := health.Check(t.Context(), &grpchealth.CheckRequest{}); err != nil || health.Status != grpchealth.StatusNotServing {
		t.Errorf("health is %v, %v during the drain", health, err)
	}
	<-running.Drained()
	_, err = client.GetFeature(t.Context(), point(1, 1))
	checkCode(t, err, connect.CodeUnavailable)
	if chat, err := client.RouteChat(t.Context()); err == nil {
		_, err = chat.Receive()
		checkCode(t, err, connect.CodeUnavailable)
		_ = chat.CloseRequest()
		_ = chat.CloseResponse()
	}
}

// A client that sets a deadline and then neither writes nor resets the stream is told when it has
// passed.
func TestChatEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	url, _ := start(t, notes.NewMemory())
	encoded, err := proto.Marshal(note(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	body, write := io.Pipe()
	defer write.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+routeguideconnect.RouteGuideRouteChatProcedure, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Grpc-Timeout", "300m")
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	sent := make(chan error, 1)
	go func() {
		_, err := write.Write(frame(encoded))
		sent <- err
	}()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	ended := make(chan []byte, 1)
	go func() {
		got, _ := io.ReadAll(response.Body)
		ended <- got
	}()
	select {
	case got := <-ended:
		if !bytes.Equal(got, frame(encoded)) {
			t.Errorf("got %x, want the note %x", got, frame(encoded))
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the chat goes on after its deadline")
	}
	if status := response.Trailer.Get("Grpc-Status"); status != "4" {
		t.Errorf("got the status %q, %q, want 4 (DEADLINE_EXCEEDED)", status, response.Trailer.Get("Grpc-Message"))
	}
}

// frame returns a message as gRPC, gRPC-Web and Connect stream it.
func frame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}
