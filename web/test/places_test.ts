import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { NoteSchema } from "../src/gen/routeguide/v1/note_service_pb";
import { locationKey } from "../src/location";
import { Places } from "../src/places";

const note = (latitude: number, longitude: number, position = 1) =>
  create(NoteSchema, { location: { latitude: Math.round(latitude * 1e7), longitude: Math.round(longitude * 1e7) }, position: BigInt(position) });

const everywhere = { south: -90, north: 90, west: -180, east: 180 };

/** The numbers of places of all cells, by size. */
const sizes = (places: Places) => [...places.within(0, 0, 1, 1)].map(({ cell }) => cell.places.size).sort((a, b) => a - b);

test("Places clusters by cells of the zoom level, whatever the order of notes and zooms", () => {
  const places = new Places(3);
  places.add(note(40, -74), 0);
  places.add(note(40.1, -74.1), 0);
  places.add(note(-40, 100), 0);
  assert.deepEqual(sizes(places), [1, 2]);
  places.setZoom(12);
  assert.deepEqual(sizes(places), [1, 1, 1]);
  places.add(note(40.2, -74), 0);
  places.setZoom(3);
  assert.deepEqual(sizes(places), [1, 3]);
});

test("Places keeps the newest note of a location, and drops doubles", () => {
  const places = new Places(3);
  assert.ok(places.add(note(1, 1, 5), 0));
  assert.equal(places.add(note(1, 1, 5), 0), undefined);
  assert.equal(places.add(note(1, 1, 4), 0), undefined);
  const place = places.add(note(1, 1, 6), 123);
  assert.deepEqual([place?.newest.position, place?.arrived, places.size], [6n, 123, 1]);
});

test("Places takes the notes of a snapshot for what is there, whatever was there before", () => {
  const places = new Places(5);
  places.add(note(1, 1, 7), 0);
  places.add(note(2, 2, 7), 0);
  places.beginSnapshot(); // After a reset: the store is another one, with positions from 1 on.
  assert.ok(places.add(note(1, 1, 3), 0));
  assert.equal(places.add(note(1, 1, 2), 0), undefined);
  assert.ok(places.add(note(1, 1, 4), 5));
  assert.equal(places.add(note(2, 2, 7), 0), undefined); // The same note.
  const positions = [note(1, 1), note(2, 2)].map(({ location }) => places.get(locationKey(location!))?.newest.position);
  assert.deepEqual(positions, [4n, 7n]);
});

test("Places forgets what a snapshot does not have, and what is outside of an area", () => {
  const places = new Places(3);
  places.add(note(1, 1), 0);
  places.add(note(2, 2), 0);
  places.add(note(3, 3), 0);
  places.beginSnapshot();
  places.add(note(1, 1), 0);
  places.add(note(2, 2, 9), 0);
  places.endSnapshot();
  assert.equal(places.size, 2);
  places.keepWithin({ south: 1.5, north: 4, west: 0, east: 4 });
  assert.deepEqual(places.newestWithin(everywhere, 10).map(({ key }) => key), ["20000000,20000000"]);
  assert.deepEqual(sizes(places), [1]);
});

test("Places returns the places with the newest notes in an area", () => {
  const places = new Places(3);
  const seconds = [5, 9, 1, 7, 3, 8];
  for (const [i, time] of seconds.entries()) {
    const left = note(i, i);
    left.leaveTime = timestampFromMs(time * 1000);
    places.add(left, 0);
  }
  const newest = (limit: number, area = everywhere) => places.newestWithin(area, limit).map(({ newest }) => Number(newest.leaveTime?.seconds));
  assert.deepEqual(newest(10), [9, 8, 7, 5, 3, 1]);
  assert.deepEqual(newest(3), [9, 8, 7]);
  assert.deepEqual(newest(2, { south: 1.5, north: 4.5, west: 0, east: 10 }), [7, 3]);
});

test("Places finds each cell once in each copy of the world that is in view", () => {
  const places = new Places(5);
  places.add(note(10, -170), 0);
  const [found] = places.within(0.9, 0, 1.1, 1);
  assert.equal(found?.copy, 1, "east of the antimeridian");
  assert.deepEqual([...places.within(0.3, 0, 0.6, 1)], []);
  for (let longitude = -169; longitude < 180; longitude++) {
    places.add(note(10, longitude), 0);
  }
  for (const zoom of [5, 2]) { // A part with few cells is looked up cell by cell.
    places.setZoom(zoom);
    assert.deepEqual([...new Set([...places.within(0.9, 0.46, 1.1, 0.48)].map(({ copy }) => copy))], [0, 1]);
    for (const [west, north, east, south, copies] of [[-3, 0, 2.999, 1, 6], [-1, 0.46, 0.999, 0.48, 2]] as const) {
      const all = [...places.within(west, north, east, south)];
      assert.equal(new Set(all.map(({ cell, copy }) => `${cell.column},${copy}`)).size, all.length);
      assert.equal(new Set(all.map(({ copy }) => copy)).size, copies);
      assert.equal(all.reduce((sum, { cell }) => sum + cell.places.size, 0), copies * 350);
    }
  }
});
