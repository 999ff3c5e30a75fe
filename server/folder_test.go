package main

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/process"
)

// shell runs a script in a folder.
func shell(t *testing.T, folder, script string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "sh", "-ec", script)
	command.Dir = folder
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, output)
	}
}

// healthStatus returns the status of the health check.
func healthStatus(t *testing.T, url string) string {
	t.Helper()
	defer http.DefaultClient.CloseIdleConnections()
	response, err := http.Post(url+"/grpc.health.v1.Health/Check", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct{ Status string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(answer.Status, "SERVING_STATUS_")
}

// awaitHealth waits until the health check has a status.
func awaitHealth(t *testing.T, url, want string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		got := healthStatus(t, url)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("health is %s, want %s", got, want)
		}
	}
}

// The server must exit when its folder is replaced: notes in the old folder would be lost.
func TestPebbleFolderReplacedEndsServer(t *testing.T) {
	t.Parallel()
	for name, replace := range map[string]string{
		"by its backup":           "cp -r notes backup; rm -rf notes; mv backup notes",
		"by hard links":           "cp -al notes backup; rm -rf notes; mv backup notes",
		"by an empty folder":      "mv notes away; mkdir notes",
		"in another LOCK file":    "touch new; mv new notes/LOCK",
		"by a link to its backup": "cp -r notes backup; mv notes away; ln -s backup notes",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			dir := filepath.Join(folder, "notes")
			server, url := startProcess(t, "--store", "pebble:"+dir)
			if _, err := exchange(t, url, &routeguide.Point{}, "a"); err != nil {
				t.Fatal(err)
			}
			shell(t, folder, replace)
			code, err := server.Wait()
			if code != 1 || err != nil {
				t.Fatalf("the server ended with %d, %v:\n%s", code, err, server.Printed())
			}
			logged := 0
			for line := range strings.Lines(server.Printed()) {
				if strings.Contains(line, "the folder of notes "+dir+" was replaced") && strings.Contains(line, "may be lost") {
					logged++
				}
			}
			if logged != 1 || strings.Contains(server.Printed(), "goroutine") {
				t.Errorf("the log has the cause %d times, want once:\n%s", logged, server.Printed())
			}
		})
	}
}

func TestPebbleFolderOpenedByAnotherServerEndsFirst(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"the folder was moved": "mv notes away",
		"LOCK was deleted":     "rm notes/LOCK",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			dir := filepath.Join(folder, "notes")
			first, url := startProcess(t, "--store", "pebble:"+dir)
			shell(t, folder, script)
			awaitHealth(t, url, "NOT_SERVING")
			second, secondURL := startProcess(t, "--store", "pebble:"+dir)
			if code, err := first.Wait(); code != 1 || err != nil || !strings.Contains(first.Printed(), "was replaced") {
				t.Errorf("the first server ended with %d, %v:\n%s", code, err, first.Printed())
			}
			if _, err := exchange(t, secondURL, &routeguide.Point{}, "a"); err != nil {
				t.Errorf("the second server: %v", err)
			}
			if err := second.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPebbleFolderMovedAwayAndBackRecovers(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]struct{ mv, back string }{
		"the folder":          {"mv notes away", "mv away notes"},
		"the folder above it": {"mv ../above ../away", "mv ../away ../above"},
		"its LOCK file":       {"mv notes/LOCK away", "mv away notes/LOCK"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := filepath.Join(t.TempDir(), "above")
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			server, url := startProcess(t, "--store", "pebble:"+filepath.Join(folder, "notes"))
			location := &routeguide.Point{Latitude: 1}
			if _, err := exchange(t, url, location, "a"); err != nil {
				t.Fatal(err)
			}
			shell(t, folder, away.mv)
			if _, err := exchange(t, url, location, "b"); connect.CodeOf(err) != connect.CodeUnavailable {
				t.Errorf("without the folder: got %v, want UNAVAILABLE", err)
			}
			awaitHealth(t, url, "NOT_SERVING")
			shell(t, filepath.Dir(folder), "cd above || cd away; "+away.back)
			awaitHealth(t, url, "SERVING")
			if reply, err := exchange(t, url, location, "c"); err != nil || strings.Join(reply, " ") != "a c" {
				t.Errorf("with the folder back: got %v, %v, want a c", reply, err)
			}
			if err := server.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPebbleFolderMovedAwayShutsDownGracefully(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	dir := filepath.Join(folder, "notes")
	server, url := startProcess(t, "--store", "pebble:"+dir)
	if _, err := exchange(t, url, &routeguide.Point{}, "a"); err != nil {
		t.Fatal(err)
	}
	shell(t, folder, "mv notes away")
	awaitHealth(t, url, "NOT_SERVING")
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the server created the folder again")
	}
	again, address, err := process.StartServer(must(program()), "--store", "pebble:"+filepath.Join(folder, "away"))
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := exchange(t, "http://"+address, &routeguide.Point{}, "b"); err != nil || strings.Join(reply, " ") != "a b" {
		t.Errorf("got %v, %v, want a b", reply, err)
	}
	if err := again.Stop(); err != nil {
		t.Error(err)
	}
}
