import{u as e}from"./index-BLBbXaNl.js";function t(e){if(e===null)return``;if(typeof e==`number`)return String(e);let t=/^[=+\-@\t\r]/.test(e)&&Number.isNaN(Number(e))?`'${e}`:e;return/[",\r\n]/.test(t)?`"${t.replace(/"/g,`""`)}"`:t}function n(e){return`${e.map(t).join(`,`)}\r\n`}function r(t){let r=n([`time`,...t.lines.map(t=>e(t.labels))]);return t.times.forEach((e,i)=>{r+=n([new Date(e*1e3).toISOString(),...t.lines.map(e=>e.values[i]??null)])}),r}function i(e){let t=[...new Set(e.flatMap(e=>Object.keys(e.metric)))].sort(),r=n([...t,`time`,`value`]);for(let i of e){let[e,a]=i.value??[i.histogram?.[0]??0,JSON.stringify(i.histogram?.[1]??null)];r+=n([...t.map(e=>i.metric[e]??``),new Date(e*1e3).toISOString(),a])}return r}var a="${DS_PROMETHEUS}";function o(e,t,n){let r=t===`stacked`,i={type:n?`heatmap`:`timeseries`,title:e.length>80?`${e.slice(0,79)}…`:e,datasource:{type:`prometheus`,uid:a},gridPos:{h:8,w:12,x:0,y:0},targets:[{refId:`A`,datasource:{type:`prometheus`,uid:a},expr:e,editorMode:`code`,range:!0,legendFormat:n?`{{le}}`:`__auto`,...n?{format:`heatmap`}:{}}],fieldConfig:{defaults:{custom:r?{fillOpacity:30,stacking:{mode:`normal`,group:`A`}}:{fillOpacity:0,stacking:{mode:`none`,group:`A`}}},overrides:[]},options:{legend:{displayMode:`table`,placement:`bottom`,calcs:[`lastNotNull`,`min`,`max`,`mean`]},tooltip:{mode:`multi`,sort:`desc`}}};return JSON.stringify(i,null,2)}function s(e){return`groups:
  - name: from-query
    rules:
      - alert: NewAlert
        expr: |-
${e.split(`
`).map(e=>`          ${e}`).join(`
`)}
        for: 5m
        labels:
          severity: warning
        annotations:
          summary: "{{ $labels.instance }}: {{ $value }}"
`}export{s as alertRule,t as csvField,r as frameToCsv,o as grafanaPanel,i as vectorToCsv};