import assert from "node:assert/strict";
import { test } from "node:test";
import { askable, covers, includes, rectangleOf } from "../src/area";

const area = (west: number, east: number) => ({ south: -10, north: 10, west, east });

test("askable stays within the longitudes of a Rectangle", () => {
  for (const [west, east, wantWest, wantEast] of [
    [-75, -73, -75, -73],
    [285, 287, -75, -73], // another copy of the world
    [170, 190, 170, 190], // across the antimeridian
    [-550, -530, 170, 190],
    [-214, -100, -214, -100], // as far as an int32 reaches
    [-230, -100, -180, 180], // beyond it: all around the Earth
    [130, 220, -180, 180],
    [100, 270, -180, 180],
    [-400, 400, -180, 180],
  ] as const) {
    const asked = askable(area(west, east));
    assert.deepEqual([asked.west, asked.east], [wantWest, wantEast], `${west} to ${east}`);
    assert.ok(covers(asked, area(west, east)), `${west} to ${east} is covered`);
    const { lo, hi } = rectangleOf(asked);
    for (const longitude of [lo.longitude, hi.longitude]) {
      assert.equal(longitude, longitude | 0, "an int32");
    }
  }
});

test("askable reaches to the poles from the edges of the map", () => {
  const asked = askable({ south: -85.06, north: 85.06, west: 0, east: 1 });
  assert.deepEqual([asked.south, asked.north], [-90, 90]);
});

test("includes and covers know all copies of the world", () => {
  const at = (longitude: number) => ({ latitude: 0, longitude: longitude * 1e7 });
  assert.ok(includes(area(170, 190), at(-175)));
  assert.ok(includes(area(-190, -170), at(175)));
  assert.ok(!includes(area(170, 190), at(0)));
  assert.ok(covers(area(170, 190), area(-185, -175)));
  assert.ok(!covers(area(170, 190), area(-195, -175)));
});
