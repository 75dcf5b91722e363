"""Genes of the synthetic cohort, grouped in programmes of genes that are expressed together.

Symbols are real, and so is their grouping by breast tissue; all numbers are invented.
"""

from __future__ import annotations

_LISTS = {
    "her2": "ERBB2 GRB7 STARD3 MIEN1 PGAP3 TCAP PNMT PSMD3 CDK12 MED1 ORMDL3 MLLT6",
    "epithelium": (
        "EPCAM KRT8 KRT18 KRT19 KRT7 CDH1 MUC1 CLDN3 CLDN4 CLDN7 CD24 ELF3 SPINT2 TACSTD2 ESRP1 GATA3 "
        "FOXA1 XBP1 TFF3 AGR2 SPDEF MLPH FASN SCD AZGP1"
    ),
    "proliferation": (
        "MKI67 TOP2A CCNB1 CCNB2 CDK1 BIRC5 UBE2C AURKA AURKB PCNA MCM2 MCM3 MCM7 TYMS RRM2 CENPF "
        "TPX2 STMN1 TUBA1B HMGB2 H2AZ1 CKS2"
    ),
    "matrix": (
        "COL1A1 COL1A2 COL3A1 COL5A1 COL5A2 COL6A1 COL6A2 COL6A3 DCN LUM FBLN1 FBN1 SPARC MGP BGN FN1 "
        "TIMP2 MMP2 SFRP2 PCOLCE CTSK DPT AEBP1 LOX ELN"
    ),
    "myofibroblast": (
        "ACTA2 TAGLN POSTN FAP COL11A1 COL10A1 COL12A1 THBS2 INHBA MMP11 VCAN TNC PDGFRB CTHRC1 ASPN"
    ),
    "t cell": (
        "CD3D CD3E CD3G CD2 CD8A CD8B CD4 IL7R TRBC1 TRBC2 TRAC CCL5 GZMK GZMA NKG7 LCK CD27 CCR7 "
        "SELL LTB PTPRC CORO1A"
    ),
    "b cell": "MS4A1 CD19 CD79A CD79B BANK1 CD37 CD22 TCL1A CXCL13 CR2 CD52 LAPTM5",
    "plasma cell": ("IGHG1 IGHG3 IGHG4 IGHA1 IGHM IGKC IGLC2 IGLC3 JCHAIN MZB1 DERL3 TNFRSF17 SDC1 PRDM1"),
    "macrophage": ("CD68 CD163 C1QA C1QB C1QC TYROBP FCER1G AIF1 LYZ CD14 MS4A6A APOE SPP1 MARCO CTSS"),
    "interferon": (
        "ISG15 IFI6 IFI27 IFIT1 IFIT3 MX1 OAS1 STAT1 CXCL9 CXCL10 CXCL11 IRF1 GBP1 HLA-A HLA-B HLA-DRA "
        " CD74 PSMB9 TAP1 IDO1"
    ),
    "adipose": "FABP4 ADIPOQ PLIN1 PLIN4 LPL CIDEC CD36 LEP GPD1 ADH1B CFD PCK1 LIPE AQP7 G0S2",
    "hypoxia": ("VEGFA CA9 ADM NDRG1 SLC2A1 HK2 PGK1 LDHA ENO1 BNIP3 ANGPTL4 PDK1 P4HA1 EGLN3 ANKRD37"),
    "necrosis": "HMOX1 DDIT3 ATF3 TRIB3 CXCL8 S100A8 S100A9 SOD2 PLAUR IL1RN",
    "endothelium": "PECAM1 VWF CDH5 CLDN5 ENG KDR PLVAP AQP1 EGFL7 ESAM EMCN RAMP2 SPARCL1",
    "red cell": "HBA1 HBA2 HBB",
    "normal gland": ("KRT5 KRT14 KRT17 KRT15 OXTR MYLK SFRP1 KIT LTF PIP SCGB2A2 WFDC2 ELF5 MYH11 CNN1"),
    "mitochondria": "MT-CO1 MT-CO2 MT-CO3 MT-ND1 MT-ND2 MT-ND4 MT-CYB MT-ATP6",
    "housekeeping": (
        "ACTB ACTG1 GAPDH B2M EEF1A1 RPLP0 RPLP1 RPS18 RPL13 RPS6 TPT1 FTL FTH1 TMSB10 TMSB4X PFN1 "
        "CFL1 UBC PPIA HSP90AB1 MYL6 SERF2"
    ),
    "noise": "NOP10 COPE ARF5 PSMB4 SNRPD2 DCTN3 VPS28 TMED9 ATP5MC3 POLR2G",
}

PROGRAMMES: dict[str, tuple[str, ...]] = {name: tuple(genes.split()) for name, genes in _LISTS.items()}
"""Programme -> genes. Those of the last, "noise", have the same mean in every spot: unpredictable."""

GENES: tuple[str, ...] = tuple(gene for genes in PROGRAMMES.values() for gene in genes)
"""All genes in the order of `PROGRAMMES`."""

PROGRAMME_OF: dict[str, str] = {gene: name for name, genes in PROGRAMMES.items() for gene in genes}
"""Gene -> name of its programme."""

FEW_GENES: tuple[str, ...] = tuple(
    gene for name, genes in PROGRAMMES.items() for gene in genes[: 5 if name == "noise" else 3]
)
"""About sixty genes, some of every programme, for small cohorts."""

ABUNDANCE: dict[str, float] = {
    "her2": 1.6,
    "epithelium": 1.6,
    "proliferation": 0.6,
    "matrix": 2.2,
    "myofibroblast": 0.9,
    "t cell": 0.7,
    "b cell": 0.6,
    "plasma cell": 3.0,
    "macrophage": 0.9,
    "interferon": 1.0,
    "adipose": 1.6,
    "hypoxia": 1.0,
    "necrosis": 0.9,
    "endothelium": 0.7,
    "red cell": 2.0,
    "normal gland": 1.0,
    "mitochondria": 4.0,
    "housekeeping": 3.2,
    "noise": 1.6,
}
"""Typical expression of each programme's genes, relative to the other programmes."""
