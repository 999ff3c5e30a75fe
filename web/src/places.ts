// The locations with notes that the page knows, and a grid that clusters them. Knows no page.
import { type Area, includes } from "./area";
import type { Note } from "./gen/routeguide/v1/note_service_pb";
import { type Location, locationKey, mercatorX, mercatorY } from "./location";

/** Pixels of the side of a cell of the grid, about: a whole number of cells is around the Earth. */
const cellSize = 48;

/** A location with notes. */
export interface Place {
  readonly key: string;
  readonly location: Location;
  /** Shares of the width and height of the world map. */
  readonly x: number;
  readonly y: number;
  newest: Note;
  /** When a note last came as it was left, in milliseconds of performance.now(); 0 if none did. */
  arrived: number;
  /** The snapshot that the place was last seen in. */
  snapshot: number;
}

/** The places in a square of the map at one zoom level: one is drawn by itself, several as a cluster. */
export interface Cell {
  readonly column: number;
  readonly row: number;
  readonly places: Set<Place>;
  /** Sums over the places. */
  x: number;
  y: number;
  arrived: number;
  /** Changes with what is drawn of the cell. */
  version: number;
}

/**
 * Places, in a grid for the current zoom level. Each note costs the same, however many places there are; a change of the zoom
 * level costs a pass over all of them.
 */
export class Places {
  private readonly byKey = new Map<string, Place>();
  private cells = new Map<number, Cell>();
  private snapshot = 0;
  private version = 0;
  /** The number of cells around the Earth, and from the northern to the southern edge of the map. */
  private side = 1;

  constructor(zoom: number) {
    this.setZoom(zoom);
  }

  get size(): number {
    return this.byKey.size;
  }

  get(key: string): Place | undefined {
    return this.byKey.get(key);
  }

  /** The places in an area whose newest notes are the newest, at most as many as the limit, in one pass over all places. */
  newestWithin(area: Area, limit: number): Place[] {
    const newest: Place[] = [];
    for (const place of this.byKey.values()) {
      const last = newest[limit - 1];
      if ((last && newestTime(place) <= newestTime(last)) || !includes(area, place.location)) {
        continue;
      }
      const before = newest.findLastIndex((other) => newestTime(other) >= newestTime(place));
      newest.splice(before + 1, 0, place);
      newest.length = Math.min(newest.length, limit);
    }
    return newest;
  }

  /** Clusters by the cells of another zoom level. */
  setZoom(zoom: number): void {
    const side = Math.max(1, Math.round((256 * 2 ** zoom) / cellSize));
    if (side === this.side) {
      return;
    }
    this.side = side;
    this.cells = new Map();
    for (const place of this.byKey.values()) {
      this.enter(place);
    }
  }

  /** The notes that come next are those of all places: see {@link endSnapshot}. */
  beginSnapshot(): void {
    this.snapshot++;
  }

  /** Forgets the places without a note since {@link beginSnapshot}: their notes are gone. */
  endSnapshot(): void {
    this.keep((place) => place.snapshot === this.snapshot);
  }

  /** Forgets the places outside of an area. */
  keepWithin(area: Area): void {
    this.keep((place) => includes(area, place.location));
  }

  private keep(wanted: (place: Place) => boolean): void {
    for (const place of this.byKey.values()) {
      if (!wanted(place)) {
        this.byKey.delete(place.key);
        this.exit(place);
      }
    }
  }

  /**
   * Adds a note, and returns its place, or undefined if the note was known. Arrived is the time if the note came as it was left,
   * and 0 if it is from before.
   */
  add(note: Note, arrived: number): Place | undefined {
    const location = note.location ?? { latitude: 0, longitude: 0 };
    const key = locationKey(location);
    const known = this.byKey.get(key);
    if (known) {
      // The first note of a snapshot counts also if it is older: after a reset, newer ones are gone, and positions may begin anew.
      const isFirst = known.snapshot !== this.snapshot;
      known.snapshot = this.snapshot;
      if (isFirst ? isSame(note, known.newest) : note.position <= known.newest.position) {
        return undefined;
      }
      known.newest = note;
      known.arrived = arrived || known.arrived;
      const cell = this.cells.get(this.cellKey(known));
      if (cell) {
        this.touch(cell, arrived);
      }
      return known;
    }
    const place: Place = {
      key,
      location: { latitude: location.latitude, longitude: location.longitude },
      x: mercatorX(location.longitude / 1e7),
      y: mercatorY(location.latitude / 1e7),
      newest: note,
      arrived,
      snapshot: this.snapshot,
    };
    this.byKey.set(key, place);
    this.enter(place);
    return place;
  }

  /**
   * The cells that touch a part of the map, given by shares of its width and height. Shares of the width may be beyond 0 and 1, where the
   * map shows further copies of the world: then a cell comes once for each copy that is in the part, with the number of the copy.
   */
  *within(west: number, north: number, east: number, south: number): Generator<{ cell: Cell; copy: number }> {
    const first = Math.floor(west * this.side);
    const last = Math.floor(east * this.side);
    const top = Math.max(0, Math.floor(north * this.side));
    const bottom = Math.min(this.side - 1, Math.floor(south * this.side));
    if ((last - first + 1) * (bottom - top + 1) > 4 * this.cells.size) {
      for (const cell of this.cells.values()) {
        if (cell.row < top || cell.row > bottom) {
          continue;
        }
        for (let copy = Math.ceil((first - cell.column) / this.side); cell.column + copy * this.side <= last; copy++) {
          yield { cell, copy };
        }
      }
      return;
    }
    for (let row = top; row <= bottom; row++) {
      for (let column = first; column <= last; column++) {
        const copy = Math.floor(column / this.side);
        const cell = this.cells.get(row * this.side + column - copy * this.side);
        if (cell) {
          yield { cell, copy };
        }
      }
    }
  }

  /** The share of the width of the map that a cell has. */
  get cellShare(): number {
    return 1 / this.side;
  }

  private cellKey(place: Place): number {
    return this.index(place.y) * this.side + this.index(place.x);
  }

  private index(share: number): number {
    return Math.max(0, Math.min(this.side - 1, Math.floor(share * this.side)));
  }

  private enter(place: Place): void {
    const key = this.cellKey(place);
    let cell = this.cells.get(key);
    if (!cell) {
      cell = { column: this.index(place.x), row: this.index(place.y), places: new Set(), x: 0, y: 0, arrived: 0, version: 0 };
      this.cells.set(key, cell);
    }
    cell.places.add(place);
    cell.x += place.x;
    cell.y += place.y;
    this.touch(cell, place.arrived);
  }

  private exit(place: Place): void {
    const key = this.cellKey(place);
    const cell = this.cells.get(key);
    if (!cell?.places.delete(place)) {
      return;
    }
    if (cell.places.size === 0) {
      this.cells.delete(key);
      return;
    }
    cell.x -= place.x;
    cell.y -= place.y;
    this.touch(cell, 0);
  }

  private touch(cell: Cell, arrived: number): void {
    cell.arrived = Math.max(cell.arrived, arrived);
    cell.version = ++this.version;
  }
}

function isSame(a: Note, b: Note): boolean {
  return a.position === b.position && a.text === b.text;
}

/** The time of the newest note of a place, in seconds since 1970. */
export function newestTime({ newest }: Place): number {
  return Number(newest.leaveTime?.seconds ?? 0n) + (newest.leaveTime?.nanos ?? 0) / 1e9;
}
