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

// startLogging runs a server whose stderr is a pipe, and returns what of the pipe is not read yet, with the URLs of
// the server and of its metrics.
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
		_ = server.Process.Kill() // It has ended if all went well.
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

// What reads the log, such as a pipe into another program, may end before the server does.
func TestServesOnWhenNobodyReadsTheLogAnyMore(t *testing.T) {
	t.Parallel()
	server, _, stderr, url, admin := startLogging(t)
	_ = stderr.Close()
	for range 3 {
		if _, err := leave(t, url, &routeguide.Point{}, "a"); err != nil {
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

// What reads the log may hang: then lines are dropped and counted, and neither chats nor the end wait.
func TestServesOnWhenTheReaderOfTheLogHangs(t *testing.T) {
	t.Parallel()
	server, _, _, url, admin := startLogging(t)
	var chatting sync.WaitGroup
	stop := make(chan struct{})
	for range 8 {
		chatting.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := leave(t, url, &routeguide.Point{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	eventuallyWithin(t, 2*time.Minute, "lines are dropped", func() bool { return droppedLines(t, admin) != "0" })
	close(stop)
	chatting.Wait()
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := server.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
}
