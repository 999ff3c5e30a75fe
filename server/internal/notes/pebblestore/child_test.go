package pebblestore_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

// childVariable makes this test binary run a child in place of the tests.
const childVariable = "PEBBLESTORE_CHILD"

// A child is this test binary as another process, which a fault ends.
type child struct {
	Role string // key of roles
	Kind string // of the fault
	Nth  int64  // number of the operation that fails or, with "append until killed", of the writer
	Dir  string // folder of the store
}

var roles = map[string]func(child){
	"append":              appendUntilFault,
	"append until killed": appendUntilKilled,
	"migrate":             migrateUntilFault,
}

func TestMain(m *testing.M) {
	if encoded := os.Getenv(childVariable); encoded != "" {
		var child child
		if err := json.Unmarshal([]byte(encoded), &child); err != nil {
			panic(err)
		}
		roles[child.Role](child)
		return
	}
	goleak.VerifyTestMain(m)
}

// command returns the command that runs a child, to be started.
func (c child) command(t *testing.T) *exec.Cmd {
	t.Helper()
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), childVariable+"="+string(encoded))
	return command
}
