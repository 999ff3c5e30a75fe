import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Filter, follow, isFinal, isTooManyLocations, type FollowEvent, type FollowNotes, type FollowOptions } from "../src/follow";
import type { FollowNotesRequest } from "../src/gen/routeguide/v1/note_service_pb";
import { aborted, note, noWait, type Response, serve } from "./service";

const filter: Filter = { filter: { case: "location", value: { latitude: 0, longitude: 0 } }, newest: 20 };
const cursor = (text: string) => new TextEncoder().encode(text);

/** A call is the responses of a server, and then an error; without one, it ends when the client cancels it. */
interface Call {
  responses: Response[];
  error?: Code;
  /** The type and the value of a detail of the error. */
  detail?: { type: string; value: Uint8Array } | undefined;
  isEnd?: boolean;
}

/** Follows a server that answers its calls by a script, until `events` events have come or following ends. */
async function run(calls: Call[], events: number, options: Partial<FollowOptions> = {}) {
  const requests: FollowNotesRequest[] = [];
  const open = new Set<AbortSignal>();
  const client = serve({
    async *followNotes(request, context) {
      requests.push(request);
      open.add(context.signal);
      const call = calls[requests.length - 1];
      assert.ok(call, "there is one call more than expected");
      yield* call.responses;
      if (call.error === undefined && !call.isEnd) {
        await aborted(context.signal);
      }
      open.delete(context.signal);
      if (call.error !== undefined) {
        const error = new ConnectError("scripted", call.error);
        error.details = call.detail ? [call.detail] : [];
        throw error;
      }
    },
  });
  const stop = new AbortController();
  const heard: FollowEvent[] = [];
  let thrown: ConnectError | undefined;
  const call: FollowNotes = (request, callOptions) => client.followNotes(request, callOptions);
  try {
    for await (const event of follow(call, filter, { signal: stop.signal, wait: noWait, ...options })) {
      heard.push(event);
      if (heard.length === events) {
        break;
      }
    }
  } catch (error) {
    thrown = ConnectError.from(error);
  }
  for (const signal of open) {
    assert.ok(signal.aborted, "a call is left open");
  }
  return { heard, requests, thrown };
}

const positions = (events: FollowEvent[]) => events.map(({ notes }) => notes.map(({ position }) => Number(position)));

test("follow continues at the last cursor after a lost call", async () => {
  const { heard, requests } = await run([
    { responses: [{ notes: [note(1)], cursor: cursor("a"), current: true }, { notes: [note(2)], cursor: cursor("b") }, {}], error: Code.Unavailable },
    { responses: [{ notes: [note(3)], current: true }] },
  ], 5);
  assert.deepEqual(positions(heard), [[1], [2], [], [], [3]]);
  assert.equal(heard[3]?.lost?.error.code, Code.Unavailable);
  assert.deepEqual(requests.map((request) => new TextDecoder().decode(request.cursor)), ["", "b"]);
  assert.equal(heard[4]?.reset, false);
});

test("follow drops notes that come twice, by location and position", async () => {
  const { heard } = await run([
    { responses: [{ notes: [note(5), note(5, 1)], cursor: cursor("a") }], error: Code.Aborted },
    { responses: [{ notes: [note(4), note(5), note(6), note(5, 1), note(4, 2)] }] },
  ], 3);
  assert.deepEqual(positions(heard), [[5, 5], [], [6, 4]]);
});

test("follow resets when the server does, and takes notes again", async () => {
  const { heard } = await run([{ responses: [{ notes: [note(5)], current: true }, { reset: true }, { notes: [note(5)], current: true }] }], 3);
  assert.deepEqual(heard.map(({ reset }) => reset), [false, true, false]);
  assert.deepEqual(positions(heard), [[5], [], [5]]);
});

test("follow resets when it has to call again without a cursor", async () => {
  const { heard } = await run([{ responses: [{ notes: [note(5)] }], error: Code.Unavailable }, { responses: [{ notes: [note(5)] }, {}] }], 4);
  assert.deepEqual(heard.map(({ reset }) => reset), [false, false, true, false]);
  assert.deepEqual(positions(heard), [[5], [], [5], []]);
});

test("follow calls again when the server ends the stream", async () => {
  const { heard, requests } = await run([{ responses: [], isEnd: true }, { responses: [{ current: true }] }], 2);
  assert.equal(heard[0]?.lost?.error.code, Code.Unavailable);
  assert.equal(requests.length, 2);
});

test("follow cancels a silent call, and calls again", async () => {
  const silent = { responses: [] };
  const { heard, requests } = await run([silent, silent, silent], 2, { silenceTimeout: 1 });
  assert.deepEqual(heard.map(({ lost }) => lost?.error.rawMessage), Array(2).fill("the server has sent nothing for 45 seconds"));
  assert.equal(requests.length, 2);
});

for (const code of [Code.InvalidArgument, Code.Unauthenticated, Code.PermissionDenied, Code.Unimplemented]) {
  test(`follow ends with ${Code[code]}`, async () => {
    const { heard, requests, thrown } = await run([{ responses: [], error: code }], 10);
    assert.deepEqual([heard.length, requests.length, thrown?.code], [0, 1, code]);
  });
}

// A google.rpc.ErrorInfo is encoded by hand: its first field is the reason.
const errorInfo = (reason: string) => ({
  type: "google.rpc.ErrorInfo",
  value: new Uint8Array([10, reason.length, ...new TextEncoder().encode(reason), 18, 1, 65]),
});

test("follow calls again after errors that the client made up, and not after the server's own", () => {
  for (const [message, code] of [["protocol error: incomplete envelope", Code.InvalidArgument], ["HTTP 404", Code.Unimplemented], ["HTTP 403", Code.PermissionDenied]] as const) {
    assert.equal(isFinal(new ConnectError(message, code)), false, message);
    assert.equal(isFinal(new ConnectError("cursor: not one of this server", code)), true);
  }
  assert.equal(isFinal(new ConnectError("HTTP 401", Code.Unauthenticated)), true);
});

test("follow ends with a rectangle of too many locations, and calls again after other RESOURCE_EXHAUSTED", async () => {
  const { thrown } = await run([{ responses: [], error: Code.ResourceExhausted, detail: errorInfo("TOO_MANY_LOCATIONS") }], 9);
  assert.ok(thrown && isTooManyLocations(thrown));
  for (const detail of [undefined, errorInfo("TOO_MANY_OTHERS"), { ...errorInfo("TOO_MANY_LOCATIONS"), type: "example.Other" }]) {
    const other = await run([{ responses: [], error: Code.ResourceExhausted, detail }, { responses: [{ current: true }] }], 2);
    assert.deepEqual(other.heard.map(({ current, lost }) => [current, lost !== undefined]), [[false, true], [true, false]]);
  }
});

test("follow backs off with full jitter from 0.5 to 20 seconds, and from the start after progress", async () => {
  const failures = Array.from({ length: 8 }, () => ({ responses: [], error: Code.ResourceExhausted }));
  const progress = { responses: [{ current: true }], error: Code.Unavailable };
  const { heard } = await run([...failures, progress, { responses: [{}] }], 11, { random: () => 0.5 });
  assert.deepEqual(heard.flatMap(({ lost }) => (lost ? [lost.retryAfter] : [])), [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000, 250]);
});

test("follow cancels its call when the signal aborts", async () => {
  const stop = new AbortController();
  const { heard, thrown } = await run([{ responses: [{ current: true }] }], 10, {
    get signal() {
      setImmediate(() => stop.abort());
      return stop.signal;
    },
  });
  assert.ok(heard.length <= 1);
  assert.equal(thrown, undefined);
});
