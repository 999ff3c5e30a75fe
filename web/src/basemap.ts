// The base map: outlines of countries, states and counties, drawn on tiles from a few files.
import * as L from "leaflet";
import * as topojson from "topojson-client";
import type { GeometryCollection, GeometryObject, MultiLineString, Topology } from "topojson-specification";
import countiesFile from "basemap:counties";
import worldFile from "basemap:world";
import { mercatorX, mercatorY } from "./location";

/** The zoom level from which counties are drawn. */
const countiesZoom = 7;

/** Points of a line that are drawn together, if any of them is on a tile. */
const chunkLength = 64;

/** The name of an area, and where it stands. */
export interface Label {
  readonly name: string;
  readonly latitude: number;
  readonly longitude: number;
  /** Degrees of latitude that the area has around this point. */
  readonly radius: number;
  readonly kind: "country" | "state" | "county";
}

type Names = [name: string, latitude: number, longitude: number, radius: number][];

interface WorldFile {
  world: Topology<{ land: GeometryObject; borders: MultiLineString }>;
  states: Topology<{ land: GeometryObject; borders: MultiLineString }>;
  names: { country: Names; state: Names };
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

/** A layer of tiles with the outlines that have been loaded so far. It loads counties once they are to be seen. */
export class Basemap extends L.GridLayer {
  private readonly tiles = new Map<HTMLElement, L.Coords>();
  private readonly layers: Layer[] = [];
  private readonly labels: Label[] = [];
  private countiesWanted = false;

  /** OnLabels is told of all labels when there are more of them. */
  constructor(private readonly onLabels: (labels: readonly Label[]) => void) {
    super({ updateWhenZooming: false, keepBuffer: 1, className: "basemap" });
    this.on("tileunload", (event: L.TileEvent) => this.tiles.delete(event.tile));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.repaint());
    void this.load<WorldFile>(worldFile, (file) => {
      const stateBorders = lines(file.states, file.states.objects.borders);
      const worldLand = polygons(file.world, file.world.objects.land);
      const statesLand = polygons(file.states, file.states.objects.land);
      this.layers.unshift(
        // Half of a coast is covered by the land, whatever country it belongs to.
        { shapes: worldLand, color: "--coast", width: 2, fill: false, minZoom: 0 },
        { shapes: statesLand, color: "--coast", width: 2, fill: false, minZoom: 0 },
        { shapes: worldLand, color: "--land", width: 0, fill: true, minZoom: 0 },
        { shapes: statesLand, color: "--land", width: 0, fill: true, minZoom: 0 },
        { shapes: stateBorders, color: "--state", width: 1, fill: false, minZoom: 3 },
        { shapes: lines(file.world, file.world.objects.borders), color: "--border", width: 1, fill: false, minZoom: 0 },
      );
      this.name("country", file.names.country);
      this.name("state", file.names.state);
    });
  }

  override onAdd(map: L.Map): this {
    map.on("zoomend", () => this.loadCounties(map.getZoom()));
    this.loadCounties(map.getZoom());
    return super.onAdd(map);
  }

  override createTile(coords: L.Coords): HTMLElement {
    const tile = document.createElement("canvas");
    this.tiles.set(tile, coords);
    this.draw(tile, coords, getComputedStyle(document.documentElement));
    return tile;
  }

  private loadCounties(zoom: number): void {
    if (this.countiesWanted || zoom < countiesZoom) {
      return;
    }
    this.countiesWanted = true;
    void this.load<CountiesFile>(countiesFile, (file) => {
      const shapes = lines(file.counties, file.counties.objects.borders);
      this.layers.push({ shapes, color: "--county", width: 0.75, fill: false, minZoom: countiesZoom });
      this.name("county", file.names.county);
    });
  }

  /** The map is complete without the outlines, so a file that cannot be loaded is no error to the user. */
  private async load<T>(file: string, use: (content: T) => void): Promise<void> {
    try {
      const response = await fetch(new URL(file, import.meta.url));
      if (!response.ok) {
        throw new Error(`${response.status} ${response.statusText}`);
      }
      use((await response.json()) as T);
      this.repaint();
    } catch (error) {
      console.warn(`The base map's ${file} cannot be loaded:`, error);
    }
  }

  private name(kind: Label["kind"], names: Names): void {
    for (const [name, latitude, longitude, radius] of names) {
      this.labels.push({ name, latitude, longitude, radius, kind });
    }
    this.onLabels(this.labels);
  }

  /** Draws all tiles again in place, so that none flickers. */
  private repaint(): void {
    const style = getComputedStyle(document.documentElement);
    for (const [tile, coords] of this.tiles) {
      this.draw(tile as HTMLCanvasElement, coords, style);
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
        if (
          shape.east < west - margin || shape.west > west + 1 / count + margin ||
          shape.south < north - margin || shape.north > north + 1 / count + margin
        ) {
          continue;
        }
        for (const line of shape.lines) {
          trace(context, line, west, north, scale);
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

/** Adds a line to the path, without points that are within a quarter of a pixel of the one before. */
function trace(context: CanvasRenderingContext2D, line: Float64Array, west: number, north: number, scale: number): void {
  let lastX = Number.NaN;
  let lastY = Number.NaN;
  for (let i = 0; i + 1 < line.length; i += 2) {
    const x = (line[i]! - west) * scale;
    const y = (line[i + 1]! - north) * scale;
    if (i === 0) {
      context.moveTo(x, y);
    } else if (i + 3 < line.length && Math.abs(x - lastX) < 0.5 && Math.abs(y - lastY) < 0.5) {
      continue;
    } else {
      context.lineTo(x, y);
    }
    lastX = x;
    lastY = y;
  }
}

/** One shape for each polygon. */
function polygons(topology: Topology, object: GeometryObject): Shape[] {
  const collected = topojson.feature(topology, { type: "GeometryCollection", geometries: [object] } as GeometryCollection);
  return collected.features.flatMap(({ geometry }) => {
    const all = geometry.type === "MultiPolygon" ? geometry.coordinates : geometry.type === "Polygon" ? [geometry.coordinates] : [];
    return all.map((rings) => shapeOf(rings.map(project)));
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

function project(line: number[][]): Float64Array {
  const projected = new Float64Array(2 * line.length);
  line.forEach(([longitude, latitude], i) => {
    projected[2 * i] = mercatorX(longitude ?? 0);
    projected[2 * i + 1] = mercatorY(latitude ?? 0);
  });
  return projected;
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
