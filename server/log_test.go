package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/routeguide/gen/routeguide"
)

// startLogging starts a server whose stderr is a pipe. It returns the unread rest of the pipe, its read end, and the
// URLs of the server and of its admin port.
func startLogging(t *testing.T) (server *exec.Cmd, log *bufio.Reader, stderr io.Closer, url, admin string) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	server = exec.Command(must(program()), "--listen", "127.0.0.1:0", "--store", "memory:", "--admin", "127.0.0.1:0")
	server.Stdout, server.Stderr = write, write
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill() // Fails if the server has ended.
		_ = read.Close()
	})
	_ = write.Close()
	log = bufio.NewReader(read)
	for url == "" {
		line, err := log.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if match := regexp.MustCompile(`admin=(\S+)`).FindStringSubmatch(line); match != nil {
			admin = "http://" + match[1]
		}
		if match := regexp.MustCompile(`listen=(\S+)`).FindStringSubmatch(line); match != nil {
			url = "http://" + match[1]
		}
	}
	return server, log, read, url, admin
}

func droppedLines(t *testing.T, admin string) string {
	t.Helper()
	return regexp.MustCompile(`(?m)^routeguide_log_dropped_total (\d+)$`).FindStringSubmatch(get(t, admin+"/metrics"))[1]
}

// The reader of the log, such as another program in a pipeline, may end before the server.
func TestLogPipeClosedDoesNotStopServer(t *testing.T) {
	t.Parallel()
	server, _, stderr, url, admin := startLogging(t)
	_ = stderr.Close()
	for range 3 {
		if _, err := lastReply(t, url, &routeguide.Point{}, "a"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "three lines are counted", func() bool { return droppedLines(t, admin) >= "3" })
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := server.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

// If the reader of the log hangs, lines are dropped and counted, and neither chats nor the shutdown block.
func TestLogPipeBlockedDoesNotBlockChats(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	server, _, _, url, admin := startLogging(t)
	var chats sync.WaitGroup
	stop := make(chan struct{})
	for range 8 {
		chats.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := lastReply(t, url, &routeguide.Point{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	eventuallyWithin(t, 2*time.Minute, "lines are dropped", func() bool { return droppedLines(t, admin) != "0" })
	close(stop)
	chats.Wait()
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := server.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}
