import assert from "node:assert/strict";
import { test } from "node:test";
import { copiesWithin, formatLocation, nearestTo } from "../src/location";
import { formatFragment, parsePlace, parseView } from "../src/view";

const view = { zoom: 8, latitude: 40.6, longitude: -74.2 };

test("a fragment has the view, and the place with all of its digits", () => {
  assert.equal(formatFragment(view, undefined), "#map=8/40.6000/-74.2000");
  for (const place of [
    { latitude: 407_127_001, longitude: -740_059_999 },
    { latitude: 0, longitude: 1 },
    { latitude: -1, longitude: -1_800_000_000 },
    { latitude: -900_000_000, longitude: 100_000_000 },
  ]) {
    const fragment = formatFragment(view, place);
    assert.deepEqual(parsePlace(fragment), place, fragment);
    assert.deepEqual(parseView(fragment), view, fragment);
  }
});

test("parsePlace and parseView take no nonsense", () => {
  for (const fragment of ["", "#", "#place=", "#place=1", "#place=1,2,3", "#place=91,0", "#place=x,y", "#place=1,", "#map=1/2", "#map=1/91/0", "#map=a/b/c", "#map=1//2", "#map=Infinity/1/1"]) {
    assert.equal(parsePlace(fragment), undefined, fragment);
    assert.equal(parseView(fragment), undefined, fragment);
  }
});

test("a place without a view is the centre of one", () => {
  assert.deepEqual(parseView("#place=40.5,-74.25"), { zoom: 14, latitude: 40.5, longitude: -74.25 });
});

test("formatLocation has no exponent, and no needless zeros", () => {
  for (const [latitude, longitude, want] of [
    [0, 1, "0° N, 0.0000001° E"],
    [-1, -10, "0.0000001° S, 0.000001° W"],
    [407_127_000, -740_059_000, "40.7127° N, 74.0059° W"],
    [900_000_000, -1_800_000_000, "90° N, 180° W"],
    [100_000_000, 1_000_000_001, "10° N, 100.0000001° E"],
  ] as const) {
    assert.equal(formatLocation({ latitude, longitude }), want);
  }
});

test("copiesWithin finds a longitude in each copy of the world", () => {
  assert.deepEqual(copiesWithin(10, -180, 180), [10]);
  assert.deepEqual(copiesWithin(10, -400, 400), [-350, 10, 370]);
  assert.deepEqual(copiesWithin(-170, 170, 200), [190]);
  assert.deepEqual(copiesWithin(10, 20, 30), []);
});

test("nearestTo measures in a view, across the antimeridian too", () => {
  const entries = [170, -179, 179.5, -170].map((longitude) => ({ location: { latitude: 0, longitude: longitude * 1e7 } }));
  const found = nearestTo({ latitude: 0, longitude: 180 }, entries, 3);
  assert.deepEqual(found.map(({ location }) => location.longitude / 1e7), [179.5, -179, 170]);
  // A degree of longitude is half as long at 60 degrees of latitude.
  const north = [{ location: { latitude: 61.4e7, longitude: 0 } }, { location: { latitude: 60e7, longitude: 2e7 } }];
  assert.deepEqual(nearestTo({ latitude: 60, longitude: 0 }, north, 1), [north[1]]);
});
