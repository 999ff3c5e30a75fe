package pebblestore

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A filter is mapped into memory, outside of Go's heap, and only while somebody has it: the memory of a deleted file keeps
// its blocks on the disk.
func TestFilterIsUnmapped(t *testing.T) {
	t.Parallel()
	dir, epoch := t.TempDir(), &epoch{number: 3, first: 1}
	mapped := func() bool {
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(maps), dir)
	}
	if err := newFilter(1000).save(vfs.Default, dir, epoch); err != nil {
		t.Fatal(err)
	}
	filter, err := loadFilter(vfs.Default, dir, epoch, 1000)
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	if !mapped() {
		t.Error("a filter in use is not mapped into memory")
	}
	runtime.KeepAlive(filter)
	for deadline := time.Now().Add(30 * time.Second); mapped(); time.Sleep(time.Millisecond) {
		if runtime.GC(); time.Now().After(deadline) {
			t.Fatal("a filter that nobody uses is still mapped")
		}
	}
	if _, err := loadFilter(vfs.Default, dir, epoch, 2000); err == nil || mapped() {
		t.Errorf("a filter of another size gets %v, and its file is mapped: %t", err, mapped())
	}
}
