package pebblestore_test

import (
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

// Each log is in a dozen epochs, with a note of every log in each.
func TestForgetAcrossEpochs(t *testing.T) {
	t.Parallel()
	options := pebblestore.Options{Dir: t.TempDir()}.WithEpochNotes(8)
	store := open(t, options)
	const young, future = 1000, math.MaxInt64 / 2
	times := map[rune]int64{'o': 1, 'y': young, 'f': future}
	logs := []struct{ log, left string }{
		{"oooooooooooo", ""},
		{"ooooooyooooo", "yooooo"},
		{"ooofffffffff", "fffffffff"},
		{"fffffffffffo", ""},
		{"fffoffffffff", "ffffffff"},
		{"ofofofofofof", "f"},
		{"ffffyffffffo", "ffffyffffffo"},
		{"yoooooooooof", "yoooooooooof"},
	}
	want := 0
	for i := range logs[0].log {
		for j, log := range logs {
			keep(t, store, place(j), times[rune(log.log[i])])
		}
	}
	for _, log := range logs {
		want += len(log.log) - len(log.left)
	}
	if count, err := store.Forget(t.Context(), young); count != want || err != nil {
		t.Errorf("%d notes are forgotten, %v, want %d", count, err, want)
	}
	for store := range alsoReopened(t, store, options) {
		for j, log := range logs {
			var want []int64
			for _, age := range log.left {
				want = append(want, times[age])
			}
			if got := timesOf(t, store, place(j)); !slices.Equal(got, want) {
				t.Errorf("of %s, %v is left, want %s", log.log, got, log.left)
			}
		}
	}
}

// Forgets at the same time count each note once.
func TestForgetCountsOnce(t *testing.T) {
	t.Parallel()
	store := open(t, pebblestore.Options{Dir: t.TempDir()})
	defer shut(t, store)
	const count = 20_000
	owner := &settled{t: t}
	owner.Add(count)
	for i := range count {
		store.Append(t.Context(), place(i), notes.Note{Time: 1, Encoded: []byte("a")}, notes.Ticket{Owner: owner})
	}
	owner.Wait()
	var total atomic.Int64
	var forgetting sync.WaitGroup
	for range 4 {
		forgetting.Go(func() {
			count, err := store.Forget(t.Context(), 2)
			if err != nil {
				t.Error(err)
			}
			total.Add(int64(count))
		})
	}
	forgetting.Wait()
	if total.Load() != count {
		t.Errorf("%d of %d notes are forgotten", total.Load(), count)
	}
}

// epochsOf returns the numbers of records and of keys of notes of an epoch.
func epochsOf(t *testing.T, store *pebblestore.Store) (records, noteKeys int) {
	t.Helper()
	iterator, err := store.DB().NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer iterator.Close()
	for valid := iterator.First(); valid; valid = iterator.Next() {
		switch iterator.Key()[0] {
		case 'e':
			records++
		case 'n':
			noteKeys++
		}
	}
	return records, noteKeys
}

// Epochs without notes are dropped: of five complete ones, the third has a young note, and the fourth notes dated in the
// future, until an old note follows.
func TestForgetDropsEpochs(t *testing.T) {
	t.Parallel()
	const old, young, future = 1, 1000, math.MaxInt64 / 2
	dir := t.TempDir()
	options := pebblestore.Options{Dir: dir}.WithEpochNotes(smallEpochs)
	store := open(t, options)
	var last notes.Position
	for i := range 5*smallEpochs + 1 {
		at := int64(old)
		if i == 2*smallEpochs+7 {
			at = young
		}
		if i/smallEpochs == 3 {
			at = future
		}
		last = keep(t, store, place(i), at).Position
	}
	await(t, "files of filters", func() bool { return len(filters(t, dir)) == 5 })
	check := func(count, wantCount, wantEpochs, wantNotes int) {
		t.Helper()
		epochs, noteKeys := epochsOf(t, store)
		if count != wantCount || epochs != wantEpochs || noteKeys != wantNotes {
			t.Errorf("%d notes are forgotten, %d epochs with %d notes are left; want %d, %d with %d", count, epochs, noteKeys, wantCount, wantEpochs, wantNotes)
		}
		if found := filters(t, dir); len(found) != wantEpochs-1 {
			t.Errorf("%q are left", found)
		}
	}
	forget := func() int {
		t.Helper()
		count, err := store.Forget(t.Context(), young)
		if err != nil {
			t.Fatal(err)
		}
		return count
	}
	check(forget(), 4*smallEpochs, 3, smallEpochs+1)
	for i := 3 * smallEpochs; i < 4*smallEpochs; i++ {
		keep(t, store, place(i), old)
	}
	await(t, "files of filters", func() bool { return len(filters(t, dir)) == 3 })
	check(forget(), 2*smallEpochs, 2, 1)
	for store := range alsoReopened(t, store, options) {
		if log := timesOf(t, store, place(2*smallEpochs+7)); !slices.Equal(log, []int64{young}) {
			t.Errorf("the young note is gone: %v", log)
		}
		receipt := keep(t, store, place(0), young)
		if receipt.Position <= last {
			t.Errorf("position %d is given after %d", receipt.Position, last)
		}
		last = receipt.Position
		if count := countLocations(t, store); count != 2 {
			t.Errorf("%d locations are left, want 2", count)
		}
	}
}

// An epoch is dropped while its filter is saved: the file does not stay.
func TestForgetDropsEpochDuringSave(t *testing.T) {
	t.Parallel()
	saving, save := make(chan struct{}), make(chan struct{})
	disk := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpRename && strings.Contains(op.Path, ".bloom") {
			close(saving)
			<-save
		}
		return nil
	}))
	dir := t.TempDir()
	store := open(t, pebblestore.Options{Dir: dir, FS: disk}.WithEpochNotes(smallEpochs))
	for i := range smallEpochs + 1 {
		keep(t, store, place(i), 1)
	}
	<-saving
	if _, err := store.Forget(t.Context(), 2); err != nil {
		t.Error(err)
	}
	close(save)
	shut(t, store)
	if found := filters(t, dir); len(found) > 0 {
		t.Errorf("%q belong to no epoch", found)
	}
}
