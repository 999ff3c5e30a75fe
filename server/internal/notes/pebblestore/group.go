package pebblestore

import (
	"cmp"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/zorder"
)

// arrival is a note of a group that is not in the store yet.
type arrival struct {
	z    uint64
	work *work
}

// group is the notes of a commit group: without those that are in the store already, by their IDs.
type group struct {
	arrivals []arrival
	// repeated are notes whose ID another note of the group or of the store has.
	repeated []repetition
}

// repetition is a note that is not kept again.
type repetition struct {
	work  *work
	first identified
	same  *work // the first note if it is in this group; else nil
	err   error // why the first note could not be read
}

// run is the notes of a group at one location, in Z-order of the group.
type run struct {
	z        uint64
	from, to int // indices in the sorted arrivals
	cached   bool
	// known is the number of notes that the location had before, or -1 if that is unknown.
	known int
	probe probe // if it is not cached
}

func (r *repetition) settle() {
	first, err := r.first, r.err
	if r.same != nil {
		first = newIdentified(r.same.note)
	}
	if err == nil && first.hash != hashOf(r.work.note.Encoded) {
		err = notes.ErrIDTaken
	}
	if err != nil {
		first.receipt = notes.Receipt{}
	}
	r.work.ticket.Settle(first.receipt, err)
}

// arrive finds the notes of a group that are not in the store yet.
func (c *committer) arrive(items []work) {
	var firsts map[string]*work // first notes with IDs in this group
	for i := range items {
		item := &items[i]
		item.note.Position = 0
		z := zorder.Of(item.location)
		if item.note.ID == "" {
			c.group.arrivals = append(c.group.arrivals, arrival{z, item})
			continue
		}
		if firsts == nil {
			firsts = make(map[string]*work)
		}
		key := string(idKey(0, z, item.note.ID))
		if same := firsts[key]; same != nil && knows(same.note.Time, item.note.Time) {
			c.group.repeated = append(c.group.repeated, repetition{work: item, same: same})
			continue
		}
		first, found, err := findID(c.db, z, item.note)
		if found || err != nil {
			c.group.repeated = append(c.group.repeated, repetition{work: item, first: first, err: err})
			continue
		}
		firsts[key] = item
		c.group.arrivals = append(c.group.arrivals, arrival{z, item})
	}
}

// load divides the sorted group into runs, and loads the logs of those locations that may have notes and are not in the
// cache, before the group is written. It reads them in key order with one iterator.
func (c *committer) load(list epochs) {
	slices.SortFunc(c.group.arrivals, func(a, b arrival) int {
		return cmp.Or(cmp.Compare(a.z, b.z), cmp.Compare(a.work.note.Position, b.work.note.Position))
	})
	c.runs = c.runs[:0]
	for i := range c.group.arrivals {
		z := c.group.arrivals[i].z
		if last := len(c.runs) - 1; last >= 0 && c.runs[last].z == z {
			c.runs[last].to = i + 1
			continue
		}
		run := run{z: z, from: i, to: i + 1}
		if run.known, run.cached = c.cache.length(z); !run.cached {
			run.probe = probeOf(z)
		}
		c.runs = append(c.runs, run)
	}
	if c.findMissing(list) {
		c.loadMissing(list)
	}
}

// findMissing finds the runs that are not cached and may have notes before, and returns whether there are any. It looks all of
// them up in one epoch after the other: the processor overlaps the cache misses of lookups that do not wait for each other.
func (c *committer) findMissing(list epochs) (missing bool) {
	for _, epoch := range list {
		filter := epoch.filter.Load()
		for i := range c.runs {
			if run := &c.runs[i]; !run.cached && filter.matches(&run.probe) {
				run.known = -1
				missing = true
			}
		}
	}
	return missing
}

// loadMissing loads the logs of the runs whose length is unknown.
func (c *committer) loadMissing(list epochs) {
	var iterator *pebble.Iterator
	for i := range c.runs {
		run := &c.runs[i]
		if run.known >= 0 {
			continue
		}
		var log *cachedLog
		var err error
		if iterator == nil {
			iterator, err = c.db.NewIter(lookupOptions)
		}
		if err == nil {
			log = &cachedLog{}
			count, size := c.cache.wanted()
			err = log.readNewest(iterator, list, run.z, notes.Everything, count, size)
		}
		if err != nil {
			// A damaged log fails reads of its location only: keep it out of the cache and go on.
			if iterator != nil {
				_ = iterator.Close() // It has failed already.
				iterator = nil
			}
			log = &cachedLog{partial: true}
		}
		c.cache.set(run.z, log)
		run.cached = true
		if run.known = len(log.ends); log.partial {
			run.known++
		}
	}
	if iterator != nil {
		_ = iterator.Close() // Errors of reads are known already.
	}
}

// remember adds the notes of a group to the logs in the cache. A new location is not worth an entry: the reply to its
// first note is the note, and most locations have no other.
func (c *committer) remember() {
	for _, run := range c.runs {
		added := c.group.arrivals[run.from:run.to]
		if !run.cached && len(added) == 1 {
			continue
		}
		if !run.cached {
			c.cache.set(run.z, &cachedLog{})
		}
		for _, arrival := range added {
			c.cache.add(run.z, arrival.work.note)
		}
	}
}
