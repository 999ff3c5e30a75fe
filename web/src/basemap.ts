// The base map: outlines of countries, states and counties, drawn on tiles from a few files.
import * as L from "leaflet";
import * as topojson from "topojson-client";
import type { GeometryCollection, GeometryObject, MultiLineString, Topology } from "topojson-specification";
import countiesFile from "basemap:counties";
import worldFile from "basemap:world";
import { Backoff, wait } from "./backoff";
import { mercatorX, mercatorY } from "./location";

/** The kinds of names, those of the largest areas first. */
const kinds: readonly Label["kind"][] = ["union", "country", "state", "county"];

/** The zoom level from which counties are drawn. */
const countiesZoom = 7;

/** Points of a line that are drawn together, if any of them is on a tile. */
const chunkLength = 64;

/** Milliseconds of a frame for drawing tiles. */
const budget = 8;

/** The name of an area, and where it stands. */
export interface Label {
  readonly name: string;
  readonly latitude: number;
  readonly longitude: number;
  /** Degrees of latitude that the area has around this point. */
  readonly radius: number;
  /** A union is a country whose states are named, too. */
  readonly kind: "union" | "country" | "state" | "county";
}

type Names = [name: string, latitude: number, longitude: number, radius: number][];

interface WorldFile {
  world: Topology<{ land: GeometryObject; borders: MultiLineString }>;
  states: Topology<{ land: GeometryObject; borders: MultiLineString }>;
  names: { union: Names; country: Names; state: Names };
}

interface CountiesFile {
  counties: Topology<{ borders: MultiLineString }>;
  names: { county: Names };
}

/** Lines or rings in shares of the world map, x and y in turns, and their bounds. */
interface Shape {
  readonly lines: Float64Array[];
  west: number;
  north: number;
  east: number;
  south: number;
}

interface Layer {
  readonly shapes: Shape[];
  readonly color: string;
  readonly width: number;
  readonly fill: boolean;
  readonly minZoom: number;
}

/**
 * A layer of tiles with the outlines that have been loaded so far. It loads counties once they are to be seen. Tiles are drawn in the frames of the browser, a few milliseconds' worth in each.
 */
export class Basemap extends L.GridLayer {
  private readonly tiles = new Map<HTMLElement, { canvas: HTMLCanvasElement; coords: L.Coords; done: L.DoneCallback | undefined }>();
  private readonly undrawn = new Set<HTMLElement>();
  private readonly layers: Layer[] = [];
  private readonly labels: Label[] = [];
  private frame = 0;
  private countiesWanted = false;

  /** OnLabels is told of all labels when there are more of them. */
  constructor(private readonly onLabels: (labels: readonly Label[]) => void) {
    super({ updateWhenZooming: false, keepBuffer: 1, className: "basemap" });
    this.on("tileunload", ({ tile }: { tile: HTMLElement }) => {
      this.tiles.delete(tile);
      this.undrawn.delete(tile);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.repaint());
    void this.read<WorldFile>(worldFile, (file) => {
      const worldLand = polygons(file.world, file.world.objects.land);
      const statesLand = polygons(file.states, file.states.objects.land);
      this.layers.unshift(
        // Half of a coast is covered by the land, whatever country it belongs to.
        { shapes: worldLand, color: "--coast", width: 2, fill: false, minZoom: 0 },
        { shapes: statesLand, color: "--coast", width: 2, fill: false, minZoom: 0 },
        { shapes: worldLand, color: "--land", width: 0, fill: true, minZoom: 0 },
        { shapes: statesLand, color: "--land", width: 0, fill: true, minZoom: 0 },
        { shapes: lines(file.states, file.states.objects.borders), color: "--state", width: 1, fill: false, minZoom: 3 },
        { shapes: lines(file.world, file.world.objects.borders), color: "--border", width: 1, fill: false, minZoom: 0 },
      );
      this.name("union", file.names.union);
      this.name("country", file.names.country);
      this.name("state", file.names.state);
    });
  }

  override onAdd(map: L.Map): this {
    map.on("zoomend", () => this.loadCounties(map.getZoom()));
    this.loadCounties(map.getZoom());
    return super.onAdd(map);
  }

  override createTile(coords: L.Coords, done: L.DoneCallback): HTMLElement {
    const tile = document.createElement("canvas");
    this.tiles.set(tile, { canvas: tile, coords, done });
    this.schedule(tile);
    return tile;
  }

  private loadCounties(zoom: number): void {
    if (this.countiesWanted || zoom < countiesZoom) {
      return;
    }
    this.countiesWanted = true;
    void this.read<CountiesFile>(countiesFile, (file) => {
      const shapes = lines(file.counties, file.counties.objects.borders);
      this.layers.push({ shapes, color: "--county", width: 0.75, fill: false, minZoom: countiesZoom });
      this.name("county", file.names.county);
    });
  }

  /**
   * Reads a file, again until the connection is back: a page that is opened while the server restarts gets its outlines, too. A server that does not
   * have the file is of another version, and the map is complete without outlines.
   */
  private async read<T>(file: string, use: (content: T) => void): Promise<void> {
    const backoff = new Backoff();
    let content: T | undefined;
    while (content === undefined) {
      try {
        const response = await fetch(new URL(file, import.meta.url));
        if (response.status >= 400 && response.status < 500) {
          console.warn(`The base map's ${file} cannot be loaded: status ${response.status}`);
          return;
        }
        content = response.ok ? ((await response.json()) as T) : undefined;
      } catch {
        // The browser logs it.
      }
      if (content === undefined) {
        await wait(backoff.next(), new AbortController().signal);
      }
    }
    use(content);
    this.repaint();
  }

  private name(kind: Label["kind"], names: Names): void {
    for (const [name, latitude, longitude, radius] of names) {
      this.labels.push({ name, latitude, longitude, radius, kind });
    }
    // Whichever file comes first: where there is room for one name, it is that of the larger area.
    this.labels.sort((a, b) => kinds.indexOf(a.kind) - kinds.indexOf(b.kind));
    this.onLabels(this.labels);
  }

  /** Draws all tiles again in place, so that none flickers. */
  private repaint(): void {
    for (const tile of this.tiles.keys()) {
      this.schedule(tile);
    }
  }

  private schedule(tile: HTMLElement): void {
    this.undrawn.add(tile);
    this.frame ||= requestAnimationFrame(() => this.drawSome());
  }

  private drawSome(): void {
    this.frame = 0;
    const style = getComputedStyle(document.documentElement);
    const end = performance.now() + budget;
    for (const tile of this.undrawn) {
      this.undrawn.delete(tile);
      const waiting = this.tiles.get(tile);
      if (waiting) {
        this.draw(waiting.canvas, waiting.coords, style);
        waiting.done?.(undefined, tile);
        waiting.done = undefined;
      }
      if (performance.now() > end && this.undrawn.size > 0) {
        this.frame = requestAnimationFrame(() => this.drawSome());
        return;
      }
    }
  }

  private draw(tile: HTMLCanvasElement, coords: L.Coords, style: CSSStyleDeclaration): void {
    const size = this.getTileSize().x;
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    tile.width = tile.height = size * ratio;
    const context = tile.getContext("2d", { alpha: false });
    if (!context) {
      return;
    }
    const count = 2 ** coords.z; // tiles around the Earth
    const scale = count * size * ratio;
    const margin = 2 / (count * size);
    const west = (((coords.x % count) + count) % count) / count;
    const north = coords.y / count;
    context.fillStyle = style.getPropertyValue("--water");
    context.fillRect(0, 0, tile.width, tile.height);
    context.lineJoin = "round";
    for (const layer of this.layers) {
      if (coords.z < layer.minZoom) {
        continue;
      }
      context.beginPath();
      for (const shape of layer.shapes) {
        if (shape.south < north - margin || shape.north > north + 1 / count + margin) {
          continue;
        }
        for (const copy of [-1, 0, 1]) { // A shape may reach beyond the antimeridian.
          if (shape.east + copy < west - margin || shape.west + copy > west + 1 / count + margin) {
            continue;
          }
          for (const line of shape.lines) {
            trace(context, line, west - copy, north, scale, tile.width);
          }
        }
      }
      if (layer.fill) {
        context.fillStyle = style.getPropertyValue(layer.color);
        context.fill("evenodd");
      } else {
        context.strokeStyle = style.getPropertyValue(layer.color);
        context.lineWidth = layer.width * ratio;
        context.stroke();
      }
    }
  }
}

/**
 * Adds a line to the path: without points that are next to the one before, and without those of a part that is beyond one side of
 * the tile, where a straight line is as good.
 */
function trace(context: CanvasRenderingContext2D, line: Float64Array, west: number, north: number, scale: number, size: number): void {
  const last = line.length - 2;
  let x = (line[0]! - west) * scale;
  let y = (line[1]! - north) * scale;
  let sides = sidesOf(x, y, size);
  let [lastX, lastY, lastSides] = [x, y, sides];
  context.moveTo(x, y);
  for (let i = 0; i <= last; i += 2) {
    const nextX = i < last ? (line[i + 2]! - west) * scale : x;
    const nextY = i < last ? (line[i + 3]! - north) * scale : y;
    const nextSides = i < last ? sidesOf(nextX, nextY, size) : sides;
    const isApart = Math.abs(x - lastX) > 0.5 || Math.abs(y - lastY) > 0.5;
    if (i === last || (isApart && (lastSides & sides & nextSides) === 0)) {
      context.lineTo(x, y);
      lastX = x;
      lastY = y;
      lastSides = sides;
    }
    x = nextX;
    y = nextY;
    sides = nextSides;
  }
}

/** The sides of a tile that a point is beyond, a bit for each. Lines are up to 4 pixels wide. */
function sidesOf(x: number, y: number, size: number): number {
  return (x < -4 ? 1 : x > size + 4 ? 2 : 0) | (y < -4 ? 4 : y > size + 4 ? 8 : 0);
}

/** One shape for each polygon. */
function polygons(topology: Topology, object: GeometryObject): Shape[] {
  const collected = topojson.feature(topology, { type: "GeometryCollection", geometries: [object] } as GeometryCollection);
  return collected.features.flatMap(({ geometry }) => {
    const all = geometry.type === "MultiPolygon" ? geometry.coordinates : geometry.type === "Polygon" ? [geometry.coordinates] : [];
    return all.map((rings) => shapeOf(rings.map((ring) => closed(project(ring)))));
  });
}

/** One shape for each chunk of a line, so that a tile draws what is near it. */
function lines(topology: Topology, object: MultiLineString): Shape[] {
  const geometry = topojson.feature(topology, object).geometry;
  const all = geometry.type === "MultiLineString" ? geometry.coordinates : [];
  return all.flatMap((line) => {
    const shapes: Shape[] = [];
    for (let start = 0; start + 1 < line.length; start += chunkLength) {
      shapes.push(shapeOf([project(line.slice(start, start + chunkLength + 1))]));
    }
    return shapes;
  });
}

/** Lines go on beyond the antimeridian, where the coordinates begin again at the other side. */
function project(line: number[][]): Float64Array {
  const projected = new Float64Array(2 * line.length);
  let before = 0;
  line.forEach(([longitude, latitude], i) => {
    const x = mercatorX(longitude ?? 0);
    before = i === 0 ? x : x + Math.round(before - x);
    projected[2 * i] = before;
    projected[2 * i + 1] = mercatorY(latitude ?? 0);
  });
  return projected;
}

/** A ring around a pole ends a full circle from its start, and is closed along the edge of the map: that of Antarctica alone. */
function closed(ring: Float64Array): Float64Array {
  const [first, last] = [ring[0] ?? 0, ring[ring.length - 2] ?? 0];
  return Math.abs(first - last) < 0.5 ? ring : Float64Array.of(...ring, last, 1, first, 1);
}

function shapeOf(projected: Float64Array[]): Shape {
  const shape = { lines: projected, west: Infinity, north: Infinity, east: -Infinity, south: -Infinity };
  for (const line of projected) {
    for (let i = 0; i + 1 < line.length; i += 2) {
      shape.west = Math.min(shape.west, line[i]!);
      shape.east = Math.max(shape.east, line[i]!);
      shape.north = Math.min(shape.north, line[i + 1]!);
      shape.south = Math.max(shape.south, line[i + 1]!);
    }
  }
  return shape;
}
