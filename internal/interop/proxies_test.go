package interop

import (
	"errors"
	"net"
	"os"
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

// proxies return the program and its arguments for a configuration, by the language of its code block in the
// documentation.
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
	"caddy": func(t *testing.T, snippet string) (string, []string) {
		folder := t.TempDir()
		config := filepath.Join(folder, "Caddyfile")
		// All Caddys would have the same admin port, and files at home.
		writeFile(t, config, strings.Replace(snippet, "{\n", "{\n\tadmin off\n", 1))
		return "env", []string{"XDG_CONFIG_HOME=" + folder, "XDG_DATA_HOME=" + folder, installed(t, "caddy"), "run", "--config", config, "--adapter", "caddyfile"}
	},
}

// proxiesWithTimeout are those that end idle calls.
var proxiesWithTimeout = []string{"nginx", "haproxy"}

// The pages that have a configuration of each proxy.
const (
	proxiesPage = "proxies.md" // for all calls, over HTTP/2
	livePage    = "live.md"    // for NoteService, over HTTP/1.1
)

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// maxAttempts is the number of free addresses that are tried, because another program may take one first.
const maxAttempts = 5

// startProxy runs a proxy with the configuration in a page of docs/, changed by edit, in front of a server, and returns
// its address. The end of the test kills it.
func startProxy(t *testing.T, page, name, server string, edit func(string) string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	snippets := regexp.MustCompile("(?s)```"+name+"\n(.*?)```").FindAllSubmatch(text, -1)
	if len(snippets) != 1 {
		t.Fatalf("docs/%s has %d code blocks of %s, want 1", page, len(snippets), name)
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
	proxy, err := process.Start(installed(t, program), args...)
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
func withShortTimeouts(config string) string {
	return strings.NewReplacer("1h", "1s", "30s", "1s").Replace(config)
}

func TestProxiesPassAllCalls(t *testing.T) {
	t.Parallel()
	for name := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, protocol := range []string{"connect", "grpc", "grpcweb"} {
				checkChat(t, run(t, ourClient, "--addr", "http://"+startProxy(t, proxiesPage, name, startOurs(t), unchanged), "--protocol", protocol))
			}
			checkChat(t, run(t, stockClient, "-addr", startProxy(t, proxiesPage, name, startOurs(t), unchanged)))
		})
	}
}

// A chat may be longer than nginx's default limit of a request body.
func TestProxiesPassLongChats(t *testing.T) {
	t.Parallel()
	for name := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := startProxy(t, proxiesPage, name, startOurs(t), unchanged)
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
	for _, name := range proxiesWithTimeout {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, address := startOurProcess(t)
			proxy := startProxy(t, proxiesPage, name, address, withShortTimeouts)
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
	for _, name := range proxiesWithTimeout {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := rawhttp2.Dial(startProxy(t, proxiesPage, name, startOurs(t), withShortTimeouts))
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

// A silent chat ends with its client, also one that follows and has half-closed.
func TestProxiesEndChatsOfClientsThatHaveGone(t *testing.T) {
	t.Parallel()
	for name := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, address := startOurProcess(t)
			client, err := process.Start(grpcurl, "-plaintext", "-H", "routeguide-follow: true", "-d", `{"location": {"longitude": 1}, "message": "one"}`,
				"-import-path", "../../proto", "-proto", "routeguide/route_guide.proto", startProxy(t, proxiesPage, name, address, unchanged), strings.TrimPrefix(routeChat, "/"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := client.Await(`"one"`); err != nil {
				t.Fatal(err)
			}
			if err := client.Kill(); err != nil {
				t.Fatal(err)
			}
			if _, err := server.Await(`msg="chat ended" .* in=1 out=1 .*code=canceled`); err != nil {
				t.Error(err)
			}
		})
	}
}

// followers return the program that follows a location through a proxy, and its arguments, by the page that has the proxy's configuration.
var followers = map[string]func(t *testing.T, proxy string) (program string, args []string){
	proxiesPage: func(_ *testing.T, proxy string) (string, []string) {
		return grpcurl, []string{"-plaintext", "-d", `{"location": {"longitude": 1}}`, "-import-path", "../../proto", "-proto", "routeguide/v1/note_service.proto", proxy, strings.TrimPrefix(followNotes, "/")}
	},
	livePage: func(t *testing.T, proxy string) (string, []string) {
		return installed(t, "curl"), []string{
			"-sSN", "--http1.1", "-H", "Content-Type: application/connect+json",
			"--data-binary", "@" + requestFile(t, true, `{"location": {"longitude": 1}}`), "http://" + proxy + followNotes,
		}
	},
}

// A proxy passes heartbeats and notes on as they come, and a follower that only gets heartbeats stays.
func TestProxiesPassNotesToFollowers(t *testing.T) {
	t.Parallel()
	for page, follower := range followers {
		for name := range proxies {
			t.Run(page+" "+name, func(t *testing.T) {
				t.Parallel()
				proxy := startProxy(t, page, name, startOurs(t), unchanged)
				program, args := follower(t, proxy)
				following, err := process.Start(program, args...)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := following.Await(`(?s)"current": *true.*"cursor"`); err != nil {
					t.Fatalf("no heartbeat: %v", err)
				}
				run(t, installed(t, "curl"), leaveThrough(proxy, page)...)
				if _, err := following.Await(`(?s)"current": *true.*"cursor".*"text": *"one"`); err != nil {
					t.Error(err)
				}
				if err := following.Kill(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// The configurations for browsers pass the map page on, and what it calls.
func TestProxiesPassMap(t *testing.T) {
	t.Parallel()
	for name := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := "http://" + startProxy(t, livePage, name, startOurs(t), unchanged)
			page := run(t, installed(t, "curl"), "-sS", "--fail", "--http1.1", "--compressed", proxy+"/")
			script := regexp.MustCompile(`src="(assets/[^"]+\.js)"`).FindStringSubmatch(page)
			if script == nil {
				t.Fatalf("no script in %s", page)
			}
			run(t, installed(t, "curl"), "-sS", "--fail", "--http1.1", "--compressed", "-o", "/dev/null", proxy+"/"+script[1])
			features := run(t, installed(t, "curl"), "-sS", "--fail", "--http1.1", "-H", "Content-Type: application/connect+json", "--output", "-",
				"--data-binary", "@"+requestFile(t, true, `{"lo": {"latitude": 400000000, "longitude": -750000000}, "hi": {"latitude": 420000000, "longitude": -730000000}}`),
				proxy+"/routeguide.RouteGuide/ListFeatures")
			if !strings.Contains(features, "Berkshire Valley Management Area Trail") {
				t.Errorf("ListFeatures through %s: %.200q", name, features)
			}
		})
	}
}

// nginx buffers responses by default, and asks for them over HTTP/1.0. It must not keep notes back for all that.
func TestNginxPassesNotesToFollowersByDefault(t *testing.T) {
	t.Parallel()
	directives := regexp.MustCompile(`(?m)^ *proxy_(http_version|set_header|read_timeout) .*\n`)
	proxy := startProxy(t, livePage, "nginx", startOurs(t), func(config string) string { return directives.ReplaceAllString(config, "") })
	program, args := followers[livePage](t, proxy)
	following, err := process.Start(program, args...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := following.Await(`"current": *true`); err != nil {
		t.Fatal(err)
	}
	run(t, installed(t, "curl"), leaveThrough(proxy, livePage)...)
	if _, err := following.Await(`"text": *"one"`); err != nil {
		t.Error(err)
	}
	if err := following.Kill(); err != nil {
		t.Error(err)
	}
}

// leaveThrough returns the arguments of a curl that leaves a note through a proxy.
func leaveThrough(proxy, page string) []string {
	version := "--http2-prior-knowledge"
	if page == livePage {
		version = "--http1.1"
	}
	return []string{"-sS", "--fail", version, "-H", "Content-Type: application/json", "-d", noteToLeave, "http://" + proxy + leaveNote}
}

// A proxy whose timeout is shorter than the interval of heartbeats ends a call that follows, and the client continues.
func TestProxiesEndIdleFollowersWhichContinue(t *testing.T) {
	t.Parallel()
	for _, name := range proxiesWithTimeout {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startOurs(t)
			proxy := startProxy(t, proxiesPage, name, server, withShortTimeouts)
			following, err := process.Start(ourClient, "follow", "--addr", "http://"+proxy, "--at", "0,0.0000001")
			if err != nil {
				t.Fatal(err)
			}
			for _, step := range []struct{ await, leave string }{
				{"", "one"},
				{`(?s) one\n.*trying again.*connected again`, "two"},
				{` two\n`, ""},
			} {
				if _, err := following.Await(step.await); err != nil {
					t.Fatal(err)
				}
				if step.leave != "" {
					run(t, ourClient, "leave", "--addr", "http://"+server, "--at", "0,0.0000001", step.leave)
				}
			}
			if err := following.Kill(); err != nil {
				t.Error(err)
			}
			if printed := following.Printed(); strings.Count(printed, " one\n") != 1 || strings.Count(printed, " two\n") != 1 || strings.Contains(printed, "cannot continue") {
				t.Errorf("each note should come once, without a reset:\n%s", printed)
			}
		})
	}
}
