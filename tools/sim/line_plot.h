// Pictures: panels of lines over a logarithmic axis, as SVG.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace terrace::sim {

struct PlotPoint {
  std::string line;  // by whose name points are joined, from left to right
  double x = 0;      // above 0
  double y = 0;
};

enum class PlotScale : uint8_t { kLinear, kLogarithmic };

struct PlotPanel {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<PlotPoint> points;           // at least one
  PlotScale y_scale = PlotScale::kLinear;  // logarithmic only where all is above 0
};

// A complete SVG document, two panels beside each other. Lines have one colour in all panels.
std::string DrawPanels(const std::vector<PlotPanel>& panels);

}  // namespace terrace::sim
