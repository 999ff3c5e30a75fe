import assert from "node:assert/strict";
import { test } from "node:test";
import { Code } from "@connectrpc/connect";
import { type Draft, Drafts } from "../src/drafts";
import { noWait, serveLeaveNote } from "./service";

/** Drafts for a server that fails with these codes first, and a draft; OnChange sees each of its changes. */
function run(codes: Code[], onChange: (draft: Draft, drafts: Drafts) => void = () => {}) {
  const { client, requests } = serveLeaveNote(codes);
  const drafts: Drafts = new Drafts({
    call: (request, options) => client.leaveNote(request, options),
    onChange: (changed) => onChange(changed, drafts),
    onLeft: () => {},
    onError: () => {},
    wait: noWait,
  });
  return { requests, drafts, draft: drafts.at({ latitude: 1, longitude: 2 }) };
}

/** Cancels once it is possible. */
function cancelRetry(draft: Draft, drafts: Drafts): void {
  if (draft.isRetrying) {
    drafts.cancel(draft);
  }
}

test("Drafts.cancel frees the text, which has the same id if it is left again", async () => {
  const { requests, drafts, draft } = run([Code.ResourceExhausted], cancelRetry);
  drafts.write(draft, "hello");
  await drafts.leave(draft);
  assert.deepEqual([draft.isLeaving, draft.isRetrying, draft.text, requests.length], [false, false, "hello", 1]);
  assert.match(draft.status, /may have been left/);
  drafts.write(draft, "hello!");
  drafts.write(draft, "hello");
  await drafts.leave(draft);
  assert.deepEqual(requests.map(({ text }) => text), ["hello", "hello"]);
  assert.equal(requests[0]?.id, requests[1]?.id);
  assert.equal(draft.text, "");
});

test("another text than the cancelled one is another note", async () => {
  const { requests, drafts, draft } = run([Code.ResourceExhausted], cancelRetry);
  drafts.write(draft, "far too long");
  await drafts.leave(draft);
  drafts.write(draft, "short");
  await drafts.leave(draft);
  assert.deepEqual(requests.map(({ text }) => text), ["far too long", "short"]);
  assert.notEqual(requests[0]?.id, requests[1]?.id);
});

test("a cancelled text keeps its id while others are left, and when the place is opened again", async () => {
  let cancels = 2;
  const { requests, drafts, draft } = run([Code.Unavailable, Code.Unavailable], (changed) => {
    if (changed.isRetrying && cancels-- > 0) {
      drafts.cancel(changed);
    }
  });
  for (const text of ["A", "B", "A", ""]) {
    drafts.write(draft, text);
    await drafts.leave(draft);
  }
  drafts.forget(draft);
  const again = drafts.at(draft.location);
  drafts.write(again, "B");
  await drafts.leave(again);
  assert.deepEqual(requests.map(({ text }) => text), ["A", "B", "A", "B"]);
  assert.equal(requests[2]?.id, requests[0]?.id);
  assert.equal(requests[3]?.id, requests[1]?.id);
  assert.notEqual(requests[0]?.id, requests[1]?.id);
});

test("the same text is another note once it has been left", async () => {
  const { requests, drafts, draft } = run([]);
  for (let i = 0; i < 2; i++) {
    drafts.write(draft, "again");
    await drafts.leave(draft);
  }
  assert.equal(requests.length, 2);
  assert.notEqual(requests[0]?.id, requests[1]?.id);
});

test("a draft can be cancelled only between its first failure and its end", async () => {
  const states: boolean[] = [];
  const { drafts, draft } = run([Code.Unavailable, Code.ResourceExhausted], ({ isRetrying }) => states.push(isRetrying));
  drafts.write(draft, "hello");
  await drafts.leave(draft);
  assert.deepEqual(states, [false, true, true, false]);
});

test("blank notes are not left, and others as they were typed", async () => {
  const { requests, drafts, draft } = run([]);
  for (const text of ["", " ", "\n\t \u00a0\u3000"]) {
    drafts.write(draft, text);
    await drafts.leave(draft);
  }
  assert.equal(requests.length, 0);
  drafts.write(draft, "  indented\n");
  await drafts.leave(draft);
  assert.equal(requests[0]?.text, "  indented\n");
});

test("Drafts.unsaved is about texts that have not been left", async () => {
  const { drafts, draft } = run([]);
  assert.deepEqual(drafts.unsaved, []);
  drafts.write(draft, "hello");
  assert.deepEqual(drafts.unsaved, [draft]);
  await drafts.leave(draft);
  assert.deepEqual(drafts.unsaved, []);
});
