#include "tools/sim/line_plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <set>

#include "absl/strings/str_format.h"

namespace terrace::sim {
namespace {

constexpr double kPanelWidth = 600;
constexpr double kPanelHeight = 400;
constexpr double kLeft = 60;
constexpr double kRight = 170;  // the legend's
constexpr double kTop = 40;
constexpr double kBottom = 50;
constexpr size_t kPanelsAcross = 2;

// Told apart by people who see few colours, and then by dashes.
constexpr std::array<const char*, 8> kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                 "#e69f00", "#56b4e9", "#7f7f7f", "#8c564b"};
constexpr std::array<const char*, 2> kDashes = {"", "5,3"};

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '>':
        out += "&gt;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string Text(double x, double y, const std::string& anchor, const std::string& text) {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor,
                         Escaped(text));
}

// The largest of 1, 2 and 5 times a power of ten that cuts `range` into four pieces or more.
double StepOf(double range) {
  const double power = std::pow(10, std::floor(std::log10(range / 4)));
  for (const double factor : {5.0, 2.0}) {
    if (factor * power * 4 <= range) {
      return factor * power;
    }
  }
  return power;
}

struct Axes {
  double low = 1e9;           // of x, log10
  double high = -1e9;         // likewise
  std::vector<double> ticks;  // of y, from the floor to the top
  PlotScale y_scale = PlotScale::kLinear;

  [[nodiscard]] double X(double x) const {
    return kLeft + (std::log10(x) - low) / (high - low) * (kPanelWidth - kLeft - kRight);
  }
  [[nodiscard]] double Y(double y) const {
    const double height =
        y_scale == PlotScale::kLinear
            ? (y - ticks.front()) / (ticks.back() - ticks.front())
            : std::log(y / ticks.front()) / std::log(ticks.back() / ticks.front());
    return kPanelHeight - kBottom - height * (kPanelHeight - kTop - kBottom);
  }
};

std::vector<double> LinearTicks(double least, double most) {
  const double step = StepOf(std::max(most - least, 0.01 * std::max(1.0, std::abs(most))));
  const double floor = std::floor(least / step);
  const double top = std::max(floor + 1, std::ceil(most / step));
  std::vector<double> ticks;
  for (double tick = floor; tick <= top + 0.5; ++tick) {
    ticks.push_back(tick * step);
  }
  return ticks;
}

// 1, 2 and 5 times powers of ten.
std::vector<double> LogarithmicTicks(double least, double most) {
  std::vector<double> ticks;
  for (auto power = static_cast<int>(std::floor(std::log10(least)));
       ticks.empty() || ticks.back() < most; ++power) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10, power);
      if (!ticks.empty() && ticks.back() >= most) {
        break;
      }
      if (tick <= least) {
        ticks.clear();
      }
      ticks.push_back(tick);
    }
  }
  return ticks;
}

Axes Fit(const PlotPanel& panel) {
  Axes axes;
  double least = 1e300;
  double most = -1e300;
  for (const PlotPoint& point : panel.points) {
    axes.low = std::min(axes.low, std::log10(point.x));
    axes.high = std::max(axes.high, std::log10(point.x));
    least = std::min(least, point.y);
    most = std::max(most, point.y);
  }
  if (axes.high - axes.low < 0.1) {
    axes.low -= 0.5;
    axes.high += 0.5;
  }
  axes.y_scale = panel.y_scale;
  axes.ticks = panel.y_scale == PlotScale::kLinear ? LinearTicks(least, most)
                                                   : LogarithmicTicks(least, most);
  return axes;
}

std::string Frame(const Axes& axes, const PlotPanel& panel) {
  std::string svg;
  for (const double y : axes.ticks) {
    svg += absl::StrFormat(
        "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#dddddd\"/>\n", kLeft,
        kPanelWidth - kRight, axes.Y(y), axes.Y(y));
    svg += Text(kLeft - 8, axes.Y(y) + 4, "end", absl::StrFormat("%.6g", y));
  }
  std::set<double> values;
  for (const PlotPoint& point : panel.points) {
    values.insert(point.x);
  }
  for (const double x : values) {
    svg += Text(axes.X(x), kPanelHeight - kBottom + 18, "middle", absl::StrFormat("%g", x));
  }
  const double middle = (kLeft + kPanelWidth - kRight) / 2;
  svg += Text(middle, kPanelHeight - 14, "middle", panel.x_label);
  svg += absl::StrFormat(
      "<text transform=\"translate(16,%.1f) rotate(-90)\" text-anchor=\"middle\">%s</text>\n",
      (kTop + kPanelHeight - kBottom) / 2, Escaped(panel.y_label));
  return svg + absl::StrFormat(
                   "<text x=\"%.1f\" y=\"22\" text-anchor=\"middle\" "
                   "font-weight=\"bold\">%s</text>\n",
                   middle, Escaped(panel.title));
}

std::string Line(const Axes& axes,
                 const std::vector<PlotPoint>& points,
                 size_t index,
                 double legend_y) {
  const char* colour = kColours[index % kColours.size()];
  const char* dash = kDashes[index / kColours.size() % kDashes.size()];
  std::string path;
  std::string svg;
  for (const PlotPoint& point : points) {
    const double x = axes.X(point.x);
    const double y = axes.Y(point.y);
    path += absl::StrFormat("%s%.1f,%.1f", path.empty() ? "M" : " L", x, y);
    svg +=
        absl::StrFormat("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"/>\n", x, y, colour);
  }
  svg += absl::StrFormat(
      "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.8\" "
      "stroke-dasharray=\"%s\"/>\n",
      path, colour, dash);
  const double x = kPanelWidth - kRight + 14;
  svg += absl::StrFormat(
      "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"1.8\" "
      "stroke-dasharray=\"%s\"/>\n",
      x, x + 24, legend_y, legend_y, colour, dash);
  return svg + Text(x + 30, legend_y + 4, "start", points.front().line);
}

std::string Draw(const PlotPanel& panel, const std::vector<std::string>& lines) {
  const Axes axes = Fit(panel);
  std::string svg = Frame(axes, panel);
  double legend_y = kTop + 8;
  for (size_t i = 0; i < lines.size(); ++i) {
    std::vector<PlotPoint> own;
    std::copy_if(panel.points.begin(), panel.points.end(), std::back_inserter(own),
                 [&](const PlotPoint& point) { return point.line == lines[i]; });
    if (own.empty()) {
      continue;
    }
    std::stable_sort(own.begin(), own.end(),
                     [](const PlotPoint& a, const PlotPoint& b) { return a.x < b.x; });
    svg += Line(axes, own, i, legend_y);
    legend_y += 20;
  }
  return svg;
}

std::vector<std::string> LinesOf(const std::vector<PlotPanel>& panels) {
  std::vector<std::string> lines;
  for (const PlotPanel& panel : panels) {
    for (const PlotPoint& point : panel.points) {
      if (std::find(lines.begin(), lines.end(), point.line) == lines.end()) {
        lines.push_back(point.line);
      }
    }
  }
  return lines;
}

}  // namespace

std::string DrawPanels(const std::vector<PlotPanel>& panels) {
  const std::vector<std::string> lines = LinesOf(panels);
  const size_t across = std::clamp<size_t>(panels.size(), 1, kPanelsAcross);
  const size_t down = std::max<size_t>(1, (panels.size() + across - 1) / across);
  const double width = kPanelWidth * static_cast<double>(across);
  const double height = kPanelHeight * static_cast<double>(down);
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f "
      "%.0f\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" "
      "fill=\"white\"/>\n",
      width, height, width, height);
  for (size_t i = 0; i < panels.size(); ++i) {
    const size_t row = i / across;
    svg += absl::StrFormat("<g transform=\"translate(%.0f,%.0f)\">\n%s</g>\n",
                           kPanelWidth * static_cast<double>(i % across),
                           kPanelHeight * static_cast<double>(row), Draw(panels[i], lines));
  }
  return svg + "</svg>\n";
}

}  // namespace terrace::sim
