import assert from "node:assert/strict";
import { test } from "node:test";
import { Code } from "@connectrpc/connect";
import { leave, type LeaveOptions, newId } from "../src/leave";
import { noWait, serveLeaveNote } from "./service";

/** Leaves a note at a server that fails with these codes first. */
async function run(codes: Code[], options: Partial<LeaveOptions> = {}) {
  const { client, requests } = serveLeaveNote(codes);
  const retries: Code[] = [];
  const stop = new AbortController();
  const result = leave((request, callOptions) => client.leaveNote(request, callOptions),
    { location: { latitude: 1, longitude: 2 }, text: "hello", id: newId() },
    { signal: stop.signal, wait: noWait, onRetry: ({ code }) => retries.push(code), ...options });
  return { requests, retries, result };
}

test("leave repeats a call with the same id, location and text until it is answered", async () => {
  const codes = [Code.Unavailable, Code.Unknown, Code.ResourceExhausted, Code.Aborted, Code.Internal, Code.Canceled, Code.DeadlineExceeded];
  const { requests, retries, result } = await run(codes);
  assert.equal((await result).position, 7n);
  assert.deepEqual(retries, codes);
  assert.equal(requests.length, codes.length + 1);
  for (const request of requests) {
    assert.deepEqual([request.id, request.text, request.location?.longitude], [requests[0]?.id, "hello", 2]);
  }
});

for (const code of [Code.InvalidArgument, Code.AlreadyExists, Code.Unauthenticated, Code.PermissionDenied, Code.DataLoss, Code.Unimplemented]) {
  test(`leave gives up with ${Code[code]}`, async () => {
    const { requests, result } = await run([code]);
    await assert.rejects(result, { code });
    assert.equal(requests.length, 1);
  });
}

test("leave ends when the signal aborts", async () => {
  const stop = new AbortController();
  const { result } = await run([Code.Unavailable, Code.Unavailable], {
    signal: stop.signal,
    wait: async () => stop.abort(),
  });
  await assert.rejects(result, { code: Code.Canceled });
});

test("newId has at most 64 bytes, and another value each time", () => {
  const ids = new Set(Array.from({ length: 100 }, newId));
  assert.equal(ids.size, 100);
  for (const id of ids) {
    assert.match(id, /^[0-9a-f]{32}$/);
  }
});
