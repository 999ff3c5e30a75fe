import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { Clicks, doubleClickTime } from "../src/clicks";

/** The calls that clicks at these times make. */
function run(...events: [timeStamp: number, detail: number, pointerType?: string][]): string[] {
  const calls: string[] = [];
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const clicks = new Clicks({
      onWait: ({ latitude }) => calls.push(`wait ${latitude}`),
      onClick: ({ latitude }) => calls.push(`click ${latitude}`),
      onDouble: (opened) => calls.push(`double ${opened}`),
    });
    let now = 0;
    for (const [timeStamp, detail, pointerType] of events) {
      mock.timers.tick(timeStamp - now);
      now = timeStamp;
      clicks.click({ latitude: timeStamp, longitude: 0 }, { timeStamp, detail, ...(pointerType && { pointerType }) });
    }
    mock.timers.tick(doubleClickTime);
  } finally {
    mock.timers.reset();
  }
  return calls;
}

test("Clicks shows a click at once, and opens its place when no second one has come", () => {
  assert.deepEqual(run([1000, 1, "mouse"]), ["wait 1000", "click 1000"]);
  assert.deepEqual(run([1000, 1, "touch"]), ["wait 1000", "click 1000"]);
});

test("Clicks opens nothing for a double click", () => {
  assert.deepEqual(run([1000, 1, "mouse"], [1100, 2, "mouse"]), ["wait 1000", "double false"]);
  assert.deepEqual(run([1000, 1, "mouse"], [1100, 2, "mouse"], [1200, 3, "mouse"]), ["wait 1000", "double false", "double false"]);
  // Taps do not count themselves.
  assert.deepEqual(run([1000, 1, "touch"], [1100, 1, "touch"]), ["wait 1000", "double false"]);
  assert.deepEqual(run([1000, 1], [1100, 1]), ["wait 1000", "double false"]);
});

test("Clicks says that a slow double click has opened a place", () => {
  assert.deepEqual(run([1000, 1, "mouse"], [1400, 2, "mouse"]), ["wait 1000", "click 1000", "double true"]);
});

test("Clicks takes two clicks of a mouse at different places for what they are", () => {
  assert.deepEqual(run([1000, 1, "mouse"], [1100, 1, "mouse"]), ["wait 1000", "wait 1100", "click 1100"]);
});
