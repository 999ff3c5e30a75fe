// A NoteService in memory behind the real client stack: Connect's transport, codec and errors.
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Client, type Code, ConnectError, createClient, createRouterTransport, type HandlerContext } from "@connectrpc/connect";
import {
  type FollowNotesRequest, type FollowNotesResponseSchema, type LeaveNoteRequest, type LeaveNoteResponse, LeaveNoteResponseSchema, type Note, NoteSchema, NoteService,
} from "../src/gen/routeguide/v1/note_service_pb";

export type Response = MessageInitShape<typeof FollowNotesResponseSchema>;

export interface Handlers {
  followNotes?: (request: FollowNotesRequest, context: HandlerContext) => AsyncIterable<Response>;
  leaveNote?: (request: LeaveNoteRequest) => LeaveNoteResponse;
}

/** A client of a service with these methods. */
export function serve(handlers: Handlers): Client<typeof NoteService> {
  return createClient(NoteService, createRouterTransport(({ service }) => service(NoteService, handlers as never)));
}

/** A client of a service that answers calls of LeaveNote with these codes first, and with a note then; and what it was asked. */
export function serveLeaveNote(codes: readonly Code[]): { client: Client<typeof NoteService>; requests: LeaveNoteRequest[] } {
  const requests: LeaveNoteRequest[] = [];
  const client = serve({
    leaveNote(request) {
      requests.push(request);
      const code = codes[requests.length - 1];
      if (code !== undefined) {
        throw new ConnectError("scripted", code);
      }
      return create(LeaveNoteResponseSchema, { note: note(7) });
    },
  });
  return { client, requests };
}

/** A note at 0, 0, or at another longitude. */
export function note(position: number, longitude = 0): Note {
  return create(NoteSchema, { location: { latitude: 0, longitude }, position: BigInt(position), text: `note ${position}` });
}

/** A time that passes at once. */
export async function noWait(): Promise<void> {}

/** A promise that settles when the signal aborts. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
    }
    signal.addEventListener("abort", () => resolve());
  });
}
