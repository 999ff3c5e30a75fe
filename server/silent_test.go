package main

import (
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/net/http2"

	"example.com/routeguide/internal/process"
)

// maxSilentStack is the limit of stacks in use per silent chat, in bytes: the goroutine of a chat that waits has a stack of 4 KiB. Some
// had to grow theirs to 8 KiB, because a note of theirs needed memory from the heap.
const maxSilentStack = 7 << 10

// A silent chat waits on a small stack, with the interceptor for metrics, too.
func TestSilentChatFitsSmallStack(t *testing.T) {
	t.Parallel()
	program, err := program()
	if err != nil {
		t.Fatal(err)
	}
	server, address, err := process.StartServer(program, "--store", "memory:", "--admin", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	match, err := server.Await(`admin=(\S+)`)
	if err != nil {
		t.Fatal(err)
	}
	before := stackInUse(t, match[1])
	const connections, chats = 4, 500
	for range connections {
		conn, err := dialHostile(address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for i := range uint32(chats) {
			if err := conn.open(2*i+1, chatPath); err != nil {
				t.Fatal(err)
			}
		}
		for i := range uint32(chats) {
			if err := conn.sendNote(2*i+1, int32(i), "silent from now on"); err != nil {
				t.Fatal(err)
			}
		}
		for replies := 0; replies < chats; {
			frame, err := conn.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := frame.(*http2.DataFrame); ok {
				replies++
			}
		}
	}
	if perChat := (stackInUse(t, match[1]) - before) / (connections * chats); perChat > maxSilentStack {
		t.Errorf("a silent chat has %d bytes of stack, want at most %d", perChat, maxSilentStack)
	} else {
		t.Logf("a silent chat has %d bytes of stack", perChat)
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
}

// stackInUse returns the bytes of all stacks of a server, without those of goroutines that have ended.
func stackInUse(t *testing.T, admin string) int {
	t.Helper()
	get(t, "http://"+admin+"/debug/pprof/heap?gc=1")
	match := regexp.MustCompile(`(?m)^go_memstats_stack_inuse_bytes (\S+)$`).FindStringSubmatch(get(t, "http://"+admin+"/metrics"))
	if match == nil {
		t.Fatal("no metric go_memstats_stack_inuse_bytes")
	}
	bytes, err := strconv.ParseFloat(match[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(bytes)
}
