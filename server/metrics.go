package main

import (
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/httpserver"
	"example.com/routeguide/server/internal/logwriter"
	"example.com/routeguide/server/internal/service"
	"example.com/routeguide/server/internal/telemetry"
)

// metrics returns the instruments that are read at each scrape.
func metrics(service *service.Service, server *httpserver.Server, logs *logwriter.Writer) []telemetry.Metric {
	chats := func(count func(chat.Counts) int64) func() int64 {
		return func() int64 { return count(service.Counts()) }
	}
	return []telemetry.Metric{
		{Name: "routeguide.connections", Description: "Open connections.", Read: server.Connections},
		{Name: "routeguide.connections.refused", Monotonic: true, Description: "Connections closed because their client exceeded its share.", Read: server.Refused},
		{Name: "routeguide.chats", Description: "Open chats.", Read: chats(func(c chat.Counts) int64 { return c.Chats })},
		{Name: "routeguide.calls", Description: "Open calls other than chats.", Read: service.Calls},
		{Name: "routeguide.notes.arriving.bytes", Description: "Bytes of notes larger than 4 KiB that have arrived in part.", Read: service.Arriving},
		{Name: "routeguide.calls.refused", Monotonic: true, Description: "Calls and large messages refused by a quota.", Read: service.Refused},
		{Name: "routeguide.calls.stalled", Monotonic: true, Description: "Calls reset because of a slow consumer, other than chats reset in a reply.", Read: service.Stalled},
		{Name: "routeguide.replies.pending", Description: "Notes that wait for their replies.", Read: chats(func(c chat.Counts) int64 { return c.Pending })},
		{Name: "routeguide.notes.received", Monotonic: true, Description: "Notes received.", Read: chats(func(c chat.Counts) int64 { return c.Received })},
		{Name: "routeguide.notes.sent", Monotonic: true, Description: "Notes sent in replies.", Read: chats(func(c chat.Counts) int64 { return c.Sent })},
		{Name: "routeguide.chats.stalled", Monotonic: true, Description: "Chats reset because of a slow consumer.", Read: chats(func(c chat.Counts) int64 { return c.Stalled })},
		{Name: "routeguide.chats.shed", Monotonic: true, Description: "Chats ended because too many notes of all chats waited for replies.", Read: chats(func(c chat.Counts) int64 { return c.Shed })},
		{Name: "routeguide.store.errors", Monotonic: true, Description: "Chats ended by an error of the store.", Read: service.StoreErrors},
		{Name: "routeguide.log.dropped", Monotonic: true, Description: "Log lines dropped because stderr was blocked.", Read: logs.Dropped},
		{Name: "routeguide.panics", Monotonic: true, Description: "Calls ended by a panic.", Read: service.Panics},
	}
}
