package main

import (
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/httpserver"
	"example.com/routeguide/server/internal/live"
	"example.com/routeguide/server/internal/logwriter"
	"example.com/routeguide/server/internal/service"
	"example.com/routeguide/server/internal/telemetry"
)

// metrics returns the instruments that are read at each scrape.
func metrics(service *service.Service, server *httpserver.Server, logs *logwriter.Writer) []telemetry.Metric {
	chats := func(count func(chat.Counts) int64) func() int64 {
		return func() int64 { return count(service.Counts()) }
	}
	followers := func(count func(live.Counts) int64) func() int64 {
		return func() int64 { return count(service.Live()) }
	}
	return []telemetry.Metric{
		{Name: "routeguide.connections", Description: "Open connections.", Read: server.Connections},
		{Name: "routeguide.connections.refused", Monotonic: true, Description: "Connections closed because their client exceeded its share.", Read: server.Refused},
		{Name: "routeguide.chats", Description: "Open chats.", Read: chats(func(c chat.Counts) int64 { return c.Chats })},
		{Name: "routeguide.calls", Description: "Open calls other than chats.", Read: service.Calls},
		{Name: "routeguide.notes.arriving.bytes", Description: "Bytes of notes larger than 4 KiB that have arrived in part, or are in a call of LeaveNote.", Read: service.Arriving},
		{Name: "routeguide.requests.unread.bytes", Description: "Bytes of requests that have arrived and were not read.", Read: server.Unread},
		{Name: "routeguide.calls.refused", Monotonic: true, Description: "Calls and large messages refused by a quota.", Read: service.Refused},
		{Name: "routeguide.calls.stalled", Monotonic: true, Description: "Calls reset because of a slow consumer, chats included.", Read: service.Stalled},
		{Name: "routeguide.replies.pending", Description: "Notes that wait for their replies.", Read: chats(func(c chat.Counts) int64 { return c.Pending })},
		{Name: "routeguide.notes.received", Monotonic: true, Description: "Notes received.", Read: chats(func(c chat.Counts) int64 { return c.Received })},
		{Name: "routeguide.notes.sent", Monotonic: true, Description: "Notes sent in replies.", Read: chats(func(c chat.Counts) int64 { return c.Sent })},
		{Name: "routeguide.followers", Description: "Open calls of FollowNotes, and chats that follow.", Read: followers(func(c live.Counts) int64 { return c.Followers })},
		{Name: "routeguide.notes.delivered", Monotonic: true, Description: "Notes sent to followers.", Read: followers(func(c live.Counts) int64 { return c.Delivered })},
		{Name: "routeguide.notes.caughtup", Monotonic: true, Description: "Notes sent to followers that were read from the store: first replies of chats that follow, and what followers had to catch up with.", Read: followers(func(c live.Counts) int64 { return c.CaughtUp })},
		{Name: "routeguide.followers.overflows", Monotonic: true, Description: "Times that a follower was too slow, and had to catch up from the store.", Read: followers(func(c live.Counts) int64 { return c.Overflows })},
		{Name: "routeguide.followers.resets", Monotonic: true, Description: "Times that a follower could not continue, and started again.", Read: followers(func(c live.Counts) int64 { return c.Resets })},
		{Name: "routeguide.announcements.missed", Monotonic: true, Description: "Times that announcements of notes were missed, and all followers had to catch up from the store.", Read: followers(func(c live.Counts) int64 { return c.Gaps })},
		{Name: "routeguide.chats.shed", Monotonic: true, Description: "Chats ended because too many notes of all chats waited for replies.", Read: chats(func(c chat.Counts) int64 { return c.Shed })},
		{Name: "routeguide.store.errors", Monotonic: true, Description: "Calls ended by an error of the store.", Read: service.StoreErrors},
		{Name: "routeguide.log.dropped", Monotonic: true, Description: "Log lines dropped because stderr was blocked.", Read: logs.Dropped},
		{Name: "routeguide.panics", Monotonic: true, Description: "Calls ended by a panic.", Read: service.Panics},
	}
}
