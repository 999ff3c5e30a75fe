package main

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// Balancers see that a server leaves before the wait that is for them, while it still serves.
func TestHealthIsNotServingBeforeTheDrainDelay(t *testing.T) {
	server, url := startProcess(t, "--store", "memory:", "--shutdown-delay", "10m", "--admin", "127.0.0.1:0")
	admin, err := server.Await(`admin=(\S+)`)
	if err != nil {
		t.Fatal(err)
	}
	ready := "http://" + admin[1] + "/readyz"
	if text := get(t, ready); text != "ok\n" {
		t.Errorf("before the drain /readyz says %q", text)
	}
	if err := server.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Await("serving on, while health says NOT_SERVING"); err != nil {
		t.Fatal(err)
	}
	text := get(t, ready)
	for deadline := time.Now().Add(30 * time.Second); text == "ok\n" && time.Now().Before(deadline); {
		text = get(t, ready) // The line comes a moment before.
	}
	if text != "shutting down\n" {
		t.Errorf("during the delay /readyz says %q", text)
	}
	if text := post(t, url+"/grpc.health.v1.Health/Check"); !strings.Contains(text, "NOT_SERVING") {
		t.Errorf("health says %s", text)
	}
	if text := post(t, url+"/routeguide.RouteGuide/GetFeature"); !strings.Contains(text, "location") {
		t.Errorf("a call during the delay gets %s", text)
	}
	if err := server.Kill(); err != nil {
		t.Error(err)
	}
}
