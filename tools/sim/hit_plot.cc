#include "tools/sim/hit_plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "absl/strings/str_format.h"

namespace terrace::sim {
namespace {

constexpr double kPanelWidth = 560;
constexpr double kPanelHeight = 400;
constexpr double kLeft = 60;
constexpr double kRight = 130;  // the legend's
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

struct Axes {
  double low = 0;   // capacity, log10
  double high = 1;  // capacity, log10
  double floor = 0;
  double top = 100;

  [[nodiscard]] double X(double capacity) const {
    return kLeft + (std::log10(capacity) - low) / (high - low) * (kPanelWidth - kLeft - kRight);
  }
  [[nodiscard]] double Y(double percent) const {
    return kPanelHeight - kBottom -
           (percent - floor) / (top - floor) * (kPanelHeight - kTop - kBottom);
  }
};

Axes Fit(const std::vector<CellResult>& own) {
  Axes axes{1e9, -1e9, 100, 0};
  for (const CellResult& result : own) {
    axes.low = std::min(axes.low, std::log10(result.capacity_percent));
    axes.high = std::max(axes.high, std::log10(result.capacity_percent));
    axes.floor = std::min(axes.floor, result.prefix_hit_percent);
    axes.top = std::max(axes.top, result.prefix_hit_percent);
  }
  if (axes.high - axes.low < 0.1) {
    axes.low -= 0.5;
    axes.high += 0.5;
  }
  axes.floor = std::floor(axes.floor / 10) * 10;
  axes.top = std::max(axes.floor + 10, std::ceil(axes.top / 10) * 10);
  return axes;
}

std::string Frame(const Axes& axes, const std::vector<CellResult>& own) {
  std::string svg;
  const double step = axes.top - axes.floor > 50 ? 20 : (axes.top - axes.floor > 20 ? 10 : 5);
  const int last_line = static_cast<int>((axes.top - axes.floor + 1e-9) / step);
  for (int line = 0; line <= last_line; ++line) {
    const double y = axes.floor + line * step;
    svg += absl::StrFormat(
        "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#dddddd\"/>\n", kLeft,
        kPanelWidth - kRight, axes.Y(y), axes.Y(y));
    svg += Text(kLeft - 8, axes.Y(y) + 4, "end", absl::StrFormat("%g", y));
  }
  std::map<double, bool> capacities;
  for (const CellResult& result : own) {
    capacities[result.capacity_percent] = true;
  }
  for (const auto& [capacity, shown] : capacities) {
    svg += Text(axes.X(capacity), kPanelHeight - kBottom + 18, "middle",
                absl::StrFormat("%g", capacity));
  }
  const double middle = (kLeft + kPanelWidth - kRight) / 2;
  svg += Text(middle, kPanelHeight - 14, "middle", "capacity, % of distinct blocks");
  svg += absl::StrFormat(
      "<text transform=\"translate(16,%.1f) rotate(-90)\" text-anchor=\"middle\">prefix hits, "
      "%%</text>\n",
      (kTop + kPanelHeight - kBottom) / 2);
  return svg + absl::StrFormat(
                   "<text x=\"%.1f\" y=\"22\" text-anchor=\"middle\" "
                   "font-weight=\"bold\">%s</text>\n",
                   middle, Escaped(own.front().trace));
}

std::string Line(const Axes& axes,
                 const std::vector<const CellResult*>& points,
                 size_t index,
                 double legend_y) {
  const char* colour = kColours[index % kColours.size()];
  const char* dash = kDashes[index / kColours.size() % kDashes.size()];
  std::string path;
  std::string svg;
  for (const CellResult* point : points) {
    const double x = axes.X(point->capacity_percent);
    const double y = axes.Y(point->prefix_hit_percent);
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
  return svg + Text(x + 30, legend_y + 4, "start", points.front()->policy);
}

std::string Panel(const std::vector<CellResult>& own) {
  const Axes axes = Fit(own);
  std::string svg = Frame(axes, own);
  std::vector<std::vector<const CellResult*>> lines;
  for (const CellResult& result : own) {
    const auto line = std::find_if(lines.begin(), lines.end(), [&](const auto& each) {
      return each.front()->policy == result.policy;
    });
    if (line == lines.end()) {
      lines.push_back({&result});
    } else {
      line->push_back(&result);
    }
  }
  for (size_t i = 0; i < lines.size(); ++i) {
    std::sort(lines[i].begin(), lines[i].end(), [](const CellResult* a, const CellResult* b) {
      return a->capacity_percent < b->capacity_percent;
    });
    svg += Line(axes, lines[i], i, kTop + 8 + static_cast<double>(i) * 20);
  }
  return svg;
}

}  // namespace

std::string ToSvg(const std::vector<CellResult>& results) {
  std::vector<std::vector<CellResult>> panels;
  for (const CellResult& result : results) {
    const auto panel = std::find_if(panels.begin(), panels.end(), [&](const auto& each) {
      return each.front().trace == result.trace;
    });
    if (panel == panels.end()) {
      panels.push_back({result});
    } else {
      panel->push_back(result);
    }
  }
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
                           kPanelHeight * static_cast<double>(row), Panel(panels[i]));
  }
  return svg + "</svg>\n";
}

}  // namespace terrace::sim
