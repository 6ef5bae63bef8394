"""What a detector costs, part by part."""

from resnet_det.analysis.cost import PartCost, analyze_model, calibrate_norms_
from resnet_det.analysis.report import format_costs, plot_costs, write_costs

__all__ = ["PartCost", "analyze_model", "calibrate_norms_", "format_costs", "plot_costs", "write_costs"]
