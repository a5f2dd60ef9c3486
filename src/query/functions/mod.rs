//! Which functions are there, and what does each compute? The table of names lives here; the arithmetic lives in
//! the modules below, free of labels and storage.

/// `anchored` and `smoothed` windows.
pub mod extended;
/// Quantiles, fractions and moments of distributions.
pub mod histogram;
/// Sums and means of histograms.
pub mod histogram_sum;
/// What the window functions need of histograms.
pub mod histops;
/// Compensated sums.
pub mod kahan;
/// `abs`, `sin`, `round`, `clamp` and the like.
pub mod math;
/// Functions over windows of samples.
pub mod over_time;
/// Quantiles of floats.
pub mod quantile;
/// `rate`, `increase`, `delta`, `irate`, `idelta`.
pub mod rate;
/// Calendar arithmetic.
pub mod time;
/// The samples a window function sees.
pub mod window;

macro_rules! functions {
    ($($variant:ident $name:literal,)*) => {
        /// A function of the language.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the names are those of the language")]
        pub enum Func { $($variant,)* }

        impl Func {
            /// The function of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Func::$variant),)* _ => None }
            }

            /// The name in the language.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Func::$variant => $name,)* }
            }
        }
    };
}

functions! {
    Abs "abs", Absent "absent", AbsentOverTime "absent_over_time", Acos "acos", Acosh "acosh", Asin "asin",
    Asinh "asinh", Atan "atan", Atanh "atanh", AvgOverTime "avg_over_time", Ceil "ceil", Changes "changes",
    Clamp "clamp", ClampMax "clamp_max", ClampMin "clamp_min", Cos "cos", Cosh "cosh",
    CountOverTime "count_over_time", DaysInMonth "days_in_month", DayOfMonth "day_of_month",
    DayOfWeek "day_of_week", DayOfYear "day_of_year", Deg "deg", Delta "delta", Deriv "deriv",
    DoubleExponentialSmoothing "double_exponential_smoothing", End "end", Exp "exp",
    FirstOverTime "first_over_time", Floor "floor",
    HistogramAvg "histogram_avg", HistogramCount "histogram_count", HistogramFraction "histogram_fraction",
    HistogramQuantile "histogram_quantile", HistogramQuantiles "histogram_quantiles",
    HistogramStddev "histogram_stddev", HistogramStdvar "histogram_stdvar", HistogramSum "histogram_sum",
    Hour "hour", Idelta "idelta", Increase "increase", Info "info", Irate "irate", LabelJoin "label_join",
    LabelReplace "label_replace", LastOverTime "last_over_time", Ln "ln", Log10 "log10", Log2 "log2",
    MadOverTime "mad_over_time", MaxOf "max_of", MaxOverTime "max_over_time", MinOf "min_of",
    MinOverTime "min_over_time", Minute "minute", Month "month", Pi "pi", PredictLinear "predict_linear",
    PresentOverTime "present_over_time", QuantileOverTime "quantile_over_time", Rad "rad", Range "range",
    Rate "rate", Resets "resets", Round "round", Scalar "scalar", Sgn "sgn", Sin "sin", Sinh "sinh",
    Sort "sort", SortByLabel "sort_by_label", SortByLabelDesc "sort_by_label_desc", SortDesc "sort_desc",
    Sqrt "sqrt", Start "start", StartTimestamp "start_timestamp", StddevOverTime "stddev_over_time",
    StdvarOverTime "stdvar_over_time", Step "step", SumOverTime "sum_over_time", Tan "tan", Tanh "tanh",
    Time "time", Timestamp "timestamp", TsOfFirstOverTime "ts_of_first_over_time",
    TsOfLastOverTime "ts_of_last_over_time", TsOfMaxOverTime "ts_of_max_over_time",
    TsOfMinOverTime "ts_of_min_over_time", Vector "vector", Year "year",
}

impl Func {
    /// Whether it answers a scalar.
    #[must_use]
    pub fn is_scalar(self) -> bool {
        use Func::{End, MaxOf, MinOf, Pi, Range, Scalar, Start, Step, Time};
        matches!(self, Time | Pi | Scalar | Start | End | Step | Range | MinOf | MaxOf)
    }

    /// Whether the result depends on the time of the step even when all arguments do not.
    #[must_use]
    pub fn depends_on_time(self) -> bool {
        use Func::{
            DayOfMonth, DayOfWeek, DayOfYear, DaysInMonth, End, Hour, Minute, Month, PredictLinear, Range,
            Start, Step, Time, Timestamp, Year,
        };
        matches!(
            self,
            DaysInMonth
                | DayOfMonth
                | DayOfWeek
                | DayOfYear
                | Hour
                | Minute
                | Month
                | Year
                | PredictLinear
                | Time
                | Timestamp
                | Start
                | End
                | Step
                | Range
        )
    }

    /// Whether it only needs count and sum of the histograms it is given.
    #[must_use]
    pub fn skips_buckets(self) -> bool {
        matches!(self, Func::HistogramCount | Func::HistogramSum | Func::HistogramAvg)
    }
}
