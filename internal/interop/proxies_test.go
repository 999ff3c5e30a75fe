package interop

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/routeguide/internal/process"
	"example.com/routeguide/internal/rawhttp2"
	"golang.org/x/net/http2"
)

// proxies return the program and its arguments for a configuration, by the language of its code block in
// docs/proxies.md.
var proxies = map[string]func(t *testing.T, snippet string) (program string, args []string){
	"nginx": func(t *testing.T, snippet string) (string, []string) {
		folder := t.TempDir()
		var paths strings.Builder
		for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			paths.WriteString(kind + "_temp_path " + filepath.Join(folder, kind) + ";\n")
		}
		config := filepath.Join(folder, "nginx.conf")
		writeFile(t, config, "daemon off;\nmaster_process off;\npid "+filepath.Join(folder, "pid")+";\n"+
			"events {}\nhttp {\naccess_log off;\n"+paths.String()+snippet+"}\n")
		return "nginx", []string{"-e", "stderr", "-c", config}
	},
	"haproxy": func(t *testing.T, snippet string) (string, []string) {
		config := filepath.Join(t.TempDir(), "haproxy.cfg")
		writeFile(t, config, snippet)
		return "haproxy", []string{"-db", "-f", config}
	},
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startProxy runs a proxy with the configuration in docs/proxies.md, changed by edit, in front of a server, and returns
// its address. The end of the test kills it.
func startProxy(t *testing.T, name, server string, edit func(string) string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/proxies.md")
	if err != nil {
		t.Fatal(err)
	}
	snippets := regexp.MustCompile("(?s)```"+name+"\n(.*?)```").FindAllSubmatch(page, -1)
	if len(snippets) != 1 {
		t.Fatalf("docs/proxies.md has %d code blocks of %s, want 1", len(snippets), name)
	}
	for range maxAttempts {
		if address := tryProxy(t, name, edit(string(snippets[0][1])), server); address != "" {
			return address
		}
	}
	t.Fatalf("%s: no free port", name)
	return ""
}

// tryProxy is startProxy for a configuration. It returns "" if another program has taken the free address.
func tryProxy(t *testing.T, name, config, server string) string {
	t.Helper()
	address := freeAddress(t)
	for documented, actual := range map[string]string{"127.0.0.1:8080": address, "127.0.0.1:50051": server} {
		if !strings.Contains(config, documented) {
			t.Fatalf("%s is not in the configuration of %s", documented, name)
		}
		config = strings.ReplaceAll(config, documented, actual)
	}
	program, args := proxies[name](t, config)
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is not installed: run `make tools`, or install it with your system's packages: %v", program, err)
	}
	proxy, err := process.Start(path, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Kill(); err != nil {
			t.Error(err)
		}
	})
	for proxy.Running() {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			return address
		}
	}
	if !strings.Contains(strings.ToLower(proxy.Printed()), "in use") {
		t.Fatalf("%s ended:\n%s", program, proxy.Printed())
	}
	return ""
}

// unchanged is for startProxy.
func unchanged(config string) string { return config }

// withShortTimeouts shortens the idle timeouts of a configuration. It is for startProxy.
func withShortTimeouts(config string) string { return strings.ReplaceAll(config, "1h", "1s") }

func TestProxiesPassAllCalls(t *testing.T) {
	t.Parallel()
	for name := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, protocol := range []string{"connect", "grpc", "grpcweb"} {
				checkChat(t, run(t, ourClient, "--addr", "http://"+startProxy(t, name, startOurs(t), unchanged), "--protocol", protocol))
			}
			checkChat(t, run(t, stockClient, "-addr", startProxy(t, name, startOurs(t), unchanged)))
		})
	}
}

// A chat may be longer than nginx's default limit of a request body.
func TestProxiesPassLongChats(t *testing.T) {
	t.Parallel()
	for name := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := startProxy(t, name, startOurs(t), unchanged)
			printed := run(t, ourClient, "load", "--addr", "http://"+address, "--mode", "written-ahead", "--connections", "1", "--chats", "1",
				"--ahead", "2", "--note-bytes", "50000", "--notes", "60", "--json")
			if !strings.Contains(printed, `"errors": 0`) || !strings.Contains(printed, `"replies": 60`) {
				t.Errorf("a long chat through %s: %s", name, printed)
			}
		})
	}
}

// A proxy ends an idle chat with INTERNAL, and the server logs it as canceled.
func TestProxiesEndIdleChats(t *testing.T) {
	t.Parallel()
	for name := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, address, err := process.StartServer(ourServer, "--store", "memory:")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := server.Stop(); err != nil {
					t.Error(err)
				}
			})
			proxy := startProxy(t, name, address, withShortTimeouts)
			session, err := process.Start(grpcurl, "-plaintext", "-d", "@", "-import-path", "../../proto", "-proto", "routeguide/route_guide.proto", proxy, "routeguide.RouteGuide/RouteChat")
			if err != nil {
				t.Fatal(err)
			}
			if err := session.Type(`{"location": {"longitude": 1}, "message": "one"}`); err != nil {
				t.Fatal(err)
			}
			if _, err := session.Await(`"one"`); err != nil {
				t.Fatal(err)
			}
			line, err := server.Await(`msg="chat ended" .* in=1 out=1 .*`)
			if err != nil || !strings.Contains(line[0], "code=canceled") {
				t.Errorf("the server logged %q, %v", line, err)
			}
			// grpcurl prints the status once its input is closed.
			if err := session.CloseInput(); err != nil {
				t.Fatal(err)
			}
			if _, err := session.Await(`Code: Internal`); err != nil {
				t.Error(err)
			}
			if err := session.Kill(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The proxy answers PINGs itself, and they do not reset its idle timeout.
func TestProxiesEndIdleChatsDespitePings(t *testing.T) {
	t.Parallel()
	for name := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := rawhttp2.Dial(startProxy(t, name, startOurs(t), withShortTimeouts))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := errors.Join(conn.Open(1, "/routeguide.RouteGuide/RouteChat", "application/grpc"), conn.WriteData(1, false, []byte{0, 0, 0, 0, 2, 0x0a, 0})); err != nil {
				t.Fatal(err)
			}
			stop := make(chan struct{})
			var pinger sync.WaitGroup
			defer pinger.Wait()
			defer close(stop)
			pinger.Go(func() {
				ticker := time.NewTicker(100 * time.Millisecond)
				defer ticker.Stop()
				for {
					select {
					case <-stop:
						return
					case <-ticker.C:
						_ = conn.WritePing(false, [8]byte{1}) // It fails once the proxy has closed the connection.
					}
				}
			})
			for acks := 0; ; {
				frame, err := conn.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				_, reset := frame.(*http2.RSTStreamFrame)
				data, _ := frame.(*http2.DataFrame)
				headers, _ := frame.(*http2.HeadersFrame)
				if ping, ok := frame.(*http2.PingFrame); ok && ping.IsAck() {
					acks++
				}
				if headers != nil && headers.StreamEnded() {
					t.Fatal("the chat ended with trailers")
				}
				if reset || data != nil && data.StreamEnded() {
					if acks == 0 {
						t.Error("no PING was answered")
					}
					return
				}
			}
		})
	}
}
