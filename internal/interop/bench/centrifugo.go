package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"example.com/routeguide/internal/process"
	"google.golang.org/protobuf/encoding/protowire"
)

// Centrifugo is a server of live messages: the peer of FollowNotes. It is not among the requirements of this module, whose versions
// it would raise: it is built on its own, once, in the folder of the tools.
const (
	centrifugoVersion = "v6.9.1"
	centrifugoPackage = "github.com/centrifugal/centrifugo/v6"
	toolFolder        = "../../.bin"
)

// centrifugoChannel is the channel that all followers subscribe to.
const centrifugoChannel = "notes"

// centrifugo follows and publishes by internal/unigrpc/unistream/unistream.proto and internal/apiproto/api.proto in Centrifugo's
// module, which cannot be imported.
var centrifugo = &liveService{
	follow: "/centrifugal.centrifugo.unistream.CentrifugoUniStream/Consume",
	// A ConnectRequest with the channel in subs, a map from channels to empty SubscribeRequests.
	followRequest: func([]byte) []byte {
		subscription := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), centrifugoChannel)
		subscription = protowire.AppendBytes(protowire.AppendTag(subscription, 2, protowire.BytesType), nil)
		return protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), subscription)
	},
	following: 10,                          // Push.connect
	text:      []protowire.Number{4, 4, 2}, // Push.pub, Publication.data, RouteNote.message

	leave: "/centrifugal.centrifugo.api.CentrifugoApi/Publish",
	leaveRequest: func(note []byte) []byte {
		request := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), centrifugoChannel)
		return protowire.AppendBytes(protowire.AppendTag(request, 2, protowire.BytesType), note)
	},
	leaveError: 1, // PublishResponse.error
	leaveAddress: func(server *process.Process, _ string) (string, error) {
		match, err := server.Await(`serving GRPC API service on ([^"]+)"`)
		if err != nil {
			return "", err
		}
		return match[1], nil
	},
}

// installCentrifugo returns the path of Centrifugo's binary, built without cgo like ours. The first time, that takes minutes.
func installCentrifugo() (program string, err error) {
	folder, err := filepath.Abs(filepath.Join(toolFolder, "centrifugo-"+centrifugoVersion))
	if err != nil {
		return "", err
	}
	program = filepath.Join(folder, "centrifugo")
	if _, err := os.Stat(program); !errors.Is(err, os.ErrNotExist) {
		return program, err
	}
	fmt.Fprintln(os.Stderr, "bench: building Centrifugo", centrifugoVersion)
	install := exec.Command("go", "install", centrifugoPackage+"@"+centrifugoVersion)
	install.Env = append(os.Environ(), "GOBIN="+folder)
	if output, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build Centrifugo: %w\n%s", err, output)
	}
	return program, nil
}

// startCentrifugo starts Centrifugo with its defaults, and returns the address of its unidirectional streams. Everyone may subscribe
// and publish. A channel keeps no history by default.
func startCentrifugo(program string, environment []string) (server *process.Process, address string, err error) {
	environment = append([]string{"CENTRIFUGO_CLIENT_INSECURE=true", "CENTRIFUGO_USAGE_STATS_DISABLED=true"}, environment...)
	for _, service := range []string{"HTTP_SERVER", "GRPC_API", "UNI_GRPC"} {
		port, err := freePort()
		if err != nil {
			return nil, "", err
		}
		prefix := "CENTRIFUGO_" + service
		environment = append(environment, prefix+"_ADDRESS=127.0.0.1", prefix+"_PORT="+port)
	}
	if server, err = process.StartWith(environment, program, "--grpc_api.enabled", "--uni_grpc.enabled"); err != nil {
		return nil, "", err
	}
	match, err := server.Await(`serving unidirectional GRPC on ([^"]+)"`)
	if err != nil {
		return nil, "", errors.Join(err, server.Kill())
	}
	return server, match[1], nil
}
