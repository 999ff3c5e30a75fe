package service_test

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
)

// A chat gives its place back, and a refusal its own: more come than there are places for at once.
func TestQuotaPlacesAreGivenBack(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.MaxChats = 1
	url, running := startWith(t, options)
	client := dial(t, url)
	open := openChat(t, client)
	const refused = 120 // Of one client 10 may be on their way, and 100 in all.
	for range refused {
		_, err := chatOf(t.Context(), client, note(1, "b"))
		checkCode(t, err, connect.CodeResourceExhausted)
		if err == nil || !strings.Contains(err.Error(), "as many chats as it can") {
			t.Fatalf("the error is %v", err)
		}
	}
	if got := running.Refused(); got != refused {
		t.Errorf("%d chats were refused, want %d", got, refused)
	}
	_, _ = open.CloseRequest(), open.CloseResponse()
	for range 3 {
		// The place of the one before is free once its handler has returned, a moment after its client knows.
		_, err := chatOf(t.Context(), client, note(1, "c"))
		for deadline := time.Now().Add(30 * time.Second); connect.CodeOf(err) == connect.CodeResourceExhausted && time.Now().Before(deadline); {
			_, err = chatOf(t.Context(), client, note(1, "c"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
