// Shapes of the HTTP API's answers, as far as the pages use them.

export type Labels = Record<string, string>;
export type Point = [number, string];
/** Bucket of a native histogram: boundary rule, lower bound, upper bound, count. */
export type Bucket = [number, string, string, string];
export interface HistogramValue {
  count: string;
  sum: string;
  buckets?: Bucket[];
}
export type HistogramPoint = [number, HistogramValue];

export interface VectorItem {
  metric: Labels;
  value?: Point;
  histogram?: HistogramPoint;
}
export interface MatrixItem {
  metric: Labels;
  values?: Point[];
  histograms?: HistogramPoint[];
}
export type QueryData =
  | { resultType: "vector"; result: VectorItem[]; stats?: QueryStats }
  | { resultType: "matrix"; result: MatrixItem[]; stats?: QueryStats }
  | { resultType: "scalar" | "string"; result: Point; stats?: QueryStats };
export interface QueryStats {
  timings?: Record<string, number>;
  samples?: { totalQueryableSamples?: number; peakSamples?: number; samplesRead?: number };
}

export interface Target {
  discoveredLabels: Labels;
  labels: Labels;
  scrapePool: string;
  scrapeUrl: string;
  globalUrl: string;
  lastError: string;
  lastScrape: string;
  lastScrapeDuration: number;
  health: "up" | "down" | "unknown";
  scrapeInterval: string;
  scrapeTimeout: string;
}
export interface DroppedTarget {
  discoveredLabels: Labels;
  scrapePool?: string;
}
export interface TargetsData {
  activeTargets: Target[];
  droppedTargets: DroppedTarget[];
  droppedTargetCounts?: Record<string, number>;
}

export interface AlertItem {
  labels: Labels;
  annotations: Labels;
  state: "pending" | "firing" | "inactive";
  activeAt?: string;
  keepFiringSince?: string;
  value: string;
}
export interface Rule {
  type: "alerting" | "recording";
  name: string;
  query: string;
  labels?: Labels;
  health: "ok" | "err" | "unknown";
  lastError?: string;
  evaluationTime: number;
  lastEvaluation: string;
  state?: "inactive" | "pending" | "firing" | "unknown";
  duration?: number;
  keepFiringFor?: number;
  annotations?: Labels;
  alerts?: AlertItem[] | null;
}
export interface RuleGroup {
  name: string;
  file: string;
  interval: number;
  limit?: number;
  evaluationTime: number;
  lastEvaluation: string;
  rules: Rule[];
}
export interface RulesData {
  groups: RuleGroup[];
  groupNextToken?: string;
}

export interface NameValue {
  name: string;
  value: number;
}
export interface TsdbStatus {
  headStats: {
    numSeries: number;
    numLabelPairs: number;
    chunkCount: number;
    minTime: number;
    maxTime: number;
  };
  seriesCountByMetricName: NameValue[];
  labelValueCountByLabelName: NameValue[];
  memoryInBytesByLabelName: NameValue[];
  seriesCountByLabelValuePair: NameValue[];
}
export interface BlockMeta {
  ulid: string;
  minTime: number;
  maxTime: number;
  stats?: {
    numSamples?: number;
    numSeries?: number;
    numChunks?: number;
    numBytes?: number;
    sizeBytes?: number;
  };
  compaction?: { level?: number; sources?: string[]; deletable?: boolean; failed?: boolean };
}
export interface MetadataItem {
  type: string;
  help: string;
  unit: string;
}
export interface RuntimeInfo {
  startTime: string;
  CWD: string;
  hostname: string;
  serverTime: string;
  reloadConfigSuccess: boolean;
  lastConfigTime: string;
  corruptionCount: number;
  storageRetention: string;
  [name: string]: unknown;
}
export interface Notification {
  text: string;
  date: string;
  active: boolean;
}
