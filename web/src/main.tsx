// Entry point: preferences, address, then the frame.
import { render } from "preact";
import { App } from "./app";
import { applyTheme } from "./lib/prefs";
import { startRouter } from "./lib/router";
import "./styles/base.css";
import "./styles/controls.css";
import "./styles/text.css";
import "./styles/tables.css";
import "./styles/charts.css";
import "./styles/drawer.css";

applyTheme();
startRouter();
render(<App />, document.getElementById("app")!);
